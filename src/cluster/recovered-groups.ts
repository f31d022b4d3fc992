/**
 * Tells the topology of groups that were recovered by force (rule D07): whoever leads one knows by its
 * own generation, and says so until the metadata group has it. Until then nobody changes its members.
 * After a recovery of the metadata group all shards are told so, because it may have forgotten something.
 */
import { isJoint, type GroupId, type RaftStatus } from '../../raft/index.js';
import type { HostedGroup } from '../group/host.js';
import type { CommandOf } from '../meta/commands.js';
import { generationOf } from '../meta/topology.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { ClusterView } from './cluster-view.js';

export interface RecoveredGroupsOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly host: { readonly allGroups: () => readonly RecoveredGroup[] };
  readonly view: Pick<ClusterView, 'topology'>;
  /** A command as JSON. Rejects when the metadata group could not be asked, or refuses. */
  readonly run: (command: string) => Promise<unknown>;
}

/** What is looked at in a group. */
type RecoveredGroup = Pick<HostedGroup, 'id' | 'isLeader' | 'generation' | 'status'>;

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
      if (group.generation <= generationOf(topology, group.id)) continue;
      const members = membersOf(group.status());
      if (members.length > 0) void this.tell(group, members);
    }
  }

  private async tell({ id: group, generation }: RecoveredGroup, members: Members): Promise<void> {
    const { log, run } = this.options;
    this.telling.add(group);
    try {
      const kind = 'recoverGroup';
      const command: CommandOf<typeof kind> = { kind, group, generation, members };
      await run(JSON.stringify(command));
      log(
        'warn',
        { group, generation, members: members.map(({ replica }) => replica) },
        'recorded after a forced recovery: missing replicas are built anew',
      );
    } catch (error) {
      // The metadata group has no leader yet, or knows this node no more: said again in a second.
      log('warn', { group, generation, error: String(error) }, 'the recovery is not known yet');
    } finally {
      this.telling.delete(group);
    }
  }
}

type Members = CommandOf<'recoverGroup'>['members'];

/**
 * All of them, once they are committed: a metadata group that forgot what it was told is told again, and
 * must not take those for strangers that were added since. The leader stays whatever happens, then
 * those that were added last, then those that are only being built.
 */
function membersOf({ id, membership, commitIndex }: RaftStatus): Members {
  const { index, membership: now } = membership;
  if (index > commitIndex || isJoint(now)) return [];
  const rank = (member: number): number =>
    member === id ? 0 : now.incoming.some((voter) => voter === member) ? 1 : 2;
  return now.members
    .map((member) => ({ replica: member.id, node: member.node }))
    .toSorted((a, b) => rank(a.replica) - rank(b.replica) || b.replica - a.replica);
}
