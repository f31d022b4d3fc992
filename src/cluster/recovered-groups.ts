/**
 * Tells the topology of groups that were recovered by force (rule D07): whoever leads one knows by its
 * own generation, and says so until the metadata group has it. Until then nobody changes its members.
 */
import type { GroupId, NodeId } from '../../raft/index.js';
import type { Host, HostedGroup } from '../group/host.js';
import type { CommandOf } from '../meta/commands.js';
import { generationOf } from '../meta/topology.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { ClusterView } from './cluster-view.js';

export interface RecoveredGroupsOptions {
  readonly node: NodeId;
  readonly clock: Clock;
  readonly log: Log;
  readonly host: Pick<Host, 'allGroups'>;
  readonly view: Pick<ClusterView, 'topology'>;
  /** A command as JSON. Rejects when the metadata group could not be asked, or refuses. */
  readonly run: (command: string) => Promise<unknown>;
}

const everyMs = 1000;

export class RecoveredGroups {
  private readonly options: RecoveredGroupsOptions;
  private readonly stop: Cancel;
  private readonly telling = new Set<GroupId>();

  constructor(options: RecoveredGroupsOptions) {
    this.options = options;
    this.stop = options.clock.every(everyMs, () => {
      this.look();
    });
  }

  close(): void {
    this.stop();
  }

  private look(): void {
    const { host, view } = this.options;
    const { topology } = view;
    if (topology.version === 0) return;
    for (const group of host.allGroups()) {
      if (!group.isLeader || this.telling.has(group.id)) continue;
      if (group.generation > generationOf(topology, group.id)) void this.tell(group);
    }
  }

  private async tell({ id: group, replica, generation }: HostedGroup): Promise<void> {
    const { node, log, run } = this.options;
    this.telling.add(group);
    try {
      const kind = 'recoverGroup';
      const command: CommandOf<typeof kind> = { kind, group, generation, replica, node };
      await run(JSON.stringify(command));
      log(
        'warn',
        { group, generation, replica },
        'recovered by force: other replicas are built anew',
      );
    } catch (error) {
      // The metadata group has no leader yet, or knows this node no more: said again in a second.
      log('warn', { group, generation, error: String(error) }, 'the recovery is not known yet');
    } finally {
      this.telling.delete(group);
    }
  }
}
