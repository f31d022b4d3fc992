/**
 * The acting leader of the metadata group: once a second it looks at nodes and shards, and runs what
 * `decide` makes of that. On every other node it does nothing, and remembers nothing.
 */
import type { GroupId, NodeId } from '../../raft/index.js';
import { KvError } from '../errors.js';
import type { MetaCommand } from '../meta/commands.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { ClusterView } from './cluster-view.js';
import {
  decide,
  groupsInQuestion,
  type ShardReport,
  type Sight,
  type Surroundings,
} from './decisions.js';
import type { Metadata } from './metadata.js';
import { MigrationWatch } from './migration-watch.js';

/** Between two rounds. Rounds do not overlap: one that takes longer skips the next. */
const roundEveryMs = 1000;

/** A shard without a leader must not make the round look like a stall. */
const reportsWithinMs = roundEveryMs / 2;

/** The rest waits for the next round, and for newer reports. */
const commandsPerRoundMax = 64;

/** Different complaints that are remembered, so that each is logged once. */
const complaintsMax = 1000;

export interface ControllerOptions {
  /** This one: it hears itself. */
  readonly node: NodeId;
  readonly metadata: Pick<Metadata, 'isLeader' | 'memberNodes' | 'run'>;
  readonly view: Pick<ClusterView, 'topology'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly isConnected: (node: NodeId) => boolean;
  /** The members of a group, by its leader; undefined when nobody says. */
  readonly report: (group: GroupId) => Promise<ShardReport | undefined>;
}

export class Controller {
  private readonly options: ControllerOptions;
  private readonly seen = new Map<NodeId, Sight>();
  private readonly complaints = new Set<string>();
  private readonly migrations = new MigrationWatch();
  /** Monotonic; undefined while somebody else leads. */
  private leadingSinceMs: number | undefined;
  private tickedMs = 0;
  private isBusy = false;
  private stop: Cancel | undefined;

  constructor(options: ControllerOptions) {
    this.options = options;
  }

  start(): void {
    const { clock } = this.options;
    this.tickedMs = clock.monotonicMs();
    this.stop ??= clock.every(roundEveryMs, () => {
      this.tick();
    });
  }

  /** A command that is under way comes to its own end; nothing follows it. */
  close(): void {
    this.stop?.();
    this.stop = undefined;
    this.beginAnew();
  }

  private tick(): void {
    const { clock, metadata, log } = this.options;
    const nowMs = clock.monotonicMs();
    const pauseMs = nowMs - this.tickedMs;
    this.tickedMs = nowMs;
    if (!metadata.isLeader) {
      this.beginAnew();
      this.complaints.clear();
      return;
    }
    if (this.leadingSinceMs !== undefined && pauseMs > 2 * roundEveryMs) this.noticeStall(pauseMs);
    this.leadingSinceMs ??= nowMs;
    this.look(nowMs);
    for (const sentence of this.migrations.look(this.options.view.topology, nowMs))
      log('warn', {}, sentence);
    if (this.isBusy) return;
    this.isBusy = true;
    this.round()
      .catch((error: unknown) => {
        log('error', { error: textOf(error) }, 'a round of the metadata leader failed');
      })
      .finally(() => {
        this.isBusy = false;
      });
  }

  /** What this node did not see, because it stood still or was cut off, is nobody's down-time (D06). */
  private noticeStall(ms: number): void {
    const { log } = this.options;
    log('warn', { ms: Math.round(ms) }, 'the metadata leader stalled: down-times start anew');
    this.beginAnew();
  }

  private beginAnew(): void {
    this.leadingSinceMs = undefined;
    this.migrations.beginAnew();
    this.seen.clear();
  }

  private look(nowMs: number): void {
    const { node: own, view, isConnected } = this.options;
    for (const { id } of view.topology.nodes) {
      if (id === own || isConnected(id)) this.seen.set(id, { connected: true });
      else if (this.seen.get(id)?.connected !== false)
        this.seen.set(id, { connected: false, sinceMs: nowMs });
    }
  }

  private async round(): Promise<void> {
    const { clock } = this.options;
    const startedMs = clock.monotonicMs();
    const surroundings = this.surroundings();
    if (surroundings === undefined) return;
    // Commands of one round carry one time: so it is seen which of them has been tried.
    const wallMs = Math.floor(clock.wallMs());
    const reports = await this.reportsOf(groupsInQuestion(surroundings));
    const tried = new Set<string>();
    while (tried.size < commandsPerRoundMax) {
      // Meanwhile leadership, connections and the topology may have changed: it is decided again.
      const now = this.surroundings();
      if (now === undefined) break;
      const command = decide({ ...now, reports, wallMs }).find(
        (each) => !tried.has(JSON.stringify(each)),
      );
      if (command === undefined) break;
      tried.add(JSON.stringify(command));
      if (!(await this.run(command))) break;
    }
    const tookMs = clock.monotonicMs() - startedMs;
    if (tookMs > roundEveryMs && this.leadingSinceMs !== undefined) this.noticeStall(tookMs);
  }

  /** Undefined when this node does not act, or not any more. */
  private surroundings(): Surroundings | undefined {
    const { metadata, view, clock } = this.options;
    const { leadingSinceMs, seen } = this;
    if (leadingSinceMs === undefined || !metadata.isLeader) return undefined;
    const nowMs = clock.monotonicMs();
    this.look(nowMs);
    const { memberNodes: metadataNodes } = metadata;
    return { topology: view.topology, seen, nowMs, metadataNodes, leadingSinceMs };
  }

  /** Of those who answer in time. */
  private reportsOf(groups: readonly GroupId[]): Promise<ReadonlyMap<GroupId, ShardReport>> {
    const { clock, report } = this.options;
    const reports = new Map<GroupId, ShardReport>();
    if (groups.length === 0) return Promise.resolve(reports);
    return new Promise((resolve) => {
      let waitingFor = groups.length;
      const finish = (): void => {
        cancel();
        resolve(new Map(reports));
      };
      const cancel = clock.after(reportsWithinMs, finish);
      const took = (group: GroupId, answer: ShardReport | undefined): void => {
        if (answer !== undefined) reports.set(group, answer);
        if (--waitingFor === 0) finish();
      };
      for (const group of groups)
        report(group).then(
          (answer) => {
            took(group, answer);
          },
          (error: unknown) => {
            this.complain({ group }, `group ${group} was not asked: ${textOf(error)}`);
            took(group, undefined);
          },
        );
    });
  }

  /** False: the round is over. */
  private async run(command: MetaCommand): Promise<boolean> {
    const { metadata, log } = this.options;
    try {
      const { version } = await metadata.run(command);
      log('info', { command, version }, sentenceOf(command));
      return true;
    } catch (error) {
      this.complain({ command }, `not done: ${sentenceOf(command)}: ${textOf(error)}`);
      // Refused: the topology has moved on, and the other commands have nothing to do with that.
      if (error instanceof KvError && error.code === 'KV_INVALID') return true;
      // It is not sure any more that this node leads.
      this.beginAnew();
      return false;
    }
  }

  /** Once: what is wrong now is likely to be wrong in a second, too. */
  private complain(fields: Readonly<Record<string, unknown>>, message: string): void {
    if (this.complaints.has(message)) return;
    if (this.complaints.size >= complaintsMax) this.complaints.clear();
    this.complaints.add(message);
    this.options.log('warn', fields, message);
  }
}

function sentenceOf(command: MetaCommand): string {
  switch (command.kind) {
    case 'setNodeState':
      return `node ${command.node} is ${command.state}`;
    case 'replaceReplica':
      return `the replica of shard ${command.shard} on node ${command.from} moves to node ${command.to}`;
    case 'addReplica':
      return `shard ${command.shard} gets one more replica, on node ${command.node}`;
    case 'setMetadata':
      return `the metadata group moves to nodes ${command.nodes.join(', ')}`;
    case 'removeShard':
      return `shard ${command.shard} has no slots any more and is removed`;
    case 'endOperation':
      return `operation ${command.id} is ${command.state}: ${command.progress}`;
    default:
      return command.kind;
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
