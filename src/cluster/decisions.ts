/**
 * What the leader of the metadata group does about the nodes and shards it sees: a pure function from
 * what is known to commands. It is asked about once a second, by whoever leads just then; nothing is
 * remembered between two askings, so a new leader goes on where the last one stopped.
 *
 * Each command is tried on the topology before it is given out: what would be refused, or would change
 * nothing, is not among them. So the same situation yields nothing more once its commands are applied.
 *
 * What needs to know the members of a shard waits until the shard's leader has said them.
 */
import type { GroupId, NodeId, ReplicaId } from '../../raft/index.js';
import { applyCommand } from '../meta/apply-command.js';
import type { MetaCommand } from '../meta/commands.js';
import { runningDrain } from '../meta/operations.js';
import { placeReplacement } from '../meta/placement.js';
import {
  hostOf,
  metadataGroup,
  nodeOf,
  presentReplicas,
  replacementOf,
  shardRecordOf,
  type NodeRecord,
  type OperationRecord,
  type Replacement,
  type ReplicaRecord,
  type ShardRecord,
  type Topology,
} from '../meta/topology.js';
import { nextMetadata, type MetadataSurroundings } from './metadata-members.js';
import { decideReshapes } from './shard-reshapes.js';

/** Whether this node has a connection to another one; itself counts as connected. */
export type Sight =
  | { readonly connected: true }
  /** `sinceMs`: on the monotonic clock. */
  | { readonly connected: false; readonly sinceMs: number };

/** Members by the latest committed membership, said by who leads the shard. */
export interface ShardReport {
  /** All that count in some quorum: in a joint configuration also those about to leave. */
  readonly voters: readonly ReplicaId[];
  readonly learners: readonly ReplicaId[];
}

export interface Surroundings {
  readonly topology: Topology;
  /** Nothing is decided about a node that is not in it. */
  readonly seen: ReadonlyMap<NodeId, Sight>;
  /** Monotonic. */
  readonly nowMs: number;
  /**
   * Nodes with a member of the metadata group, those that are leaving it too: as this leader's own log
   * says, so whatever it decides comes after that.
   */
  readonly metadataNodes: readonly NodeId[];
  /** Monotonic: since when it leads without interruption or stall. Silence before does not count (D06). */
  readonly leadingSinceMs: number;
}

export interface Situation extends Surroundings {
  /** Of the shards whose leaders answered. */
  readonly reports: ReadonlyMap<GroupId, ShardReport>;
  /** Milliseconds since 1970: the time that commands carry. */
  readonly wallMs: number;
}

/** In the order in which they are to be run. */
export function decide(situation: Situation): readonly MetaCommand[] {
  if (situation.topology.version === 0) return [];
  const plan = new Plan(situation);
  decideNodeStates(plan);
  for (const operation of plan.topology.operations)
    if (operation.state === 'running') decideReplacement(plan, operation);
  startReplacements(plan, 'lost');
  startAdditions(plan);
  startReplacements(plan, 'draining');
  decideMetadata(plan);
  for (const operation of plan.topology.operations)
    if (operation.state === 'running' && operation.kind === 'drainNode')
      decideDrain(plan, operation);
  decideReshapes(plan);
  return plan.commands;
}

/** The groups without whose reports nothing could be decided that may have to be: mostly none. */
export function groupsInQuestion(surroundings: Surroundings): readonly GroupId[] {
  const isMetadata = wantedMetadata(surroundings) !== undefined;
  return [...(isMetadata ? [metadataGroup] : []), ...shardsInQuestion(surroundings)];
}

function shardsInQuestion(surroundings: Surroundings): readonly GroupId[] {
  const { topology } = surroundings;
  const running = runningReplacements(topology);
  const moving = new Set(running.map(({ shard }) => shard));
  if (running.length >= repairsMaxOf(topology)) return [...moving];
  const leaving = new Set(
    topology.nodes
      .filter((node) => node.state === 'draining' || isLost(surroundings, node))
      .map(({ id }) => id),
  );
  const isLacking = topology.shards.some(lacks);
  return topology.shards
    .filter((shard) => {
      if (moving.has(shard.id) || shard.replicas.some(({ node }) => leaving.has(node))) return true;
      // Replicas that were added count as repairs until they are voters.
      return isLacking && (lacks(shard) || !shard.replicas.every((each) => isFounder(shard, each)));
    })
    .map(({ id }) => id);
}

/** The situation, and what it is to become. */
class Plan {
  readonly situation: Situation;
  readonly commands: MetaCommand[] = [];
  /** As the commands so far will have made it. */
  topology: Topology;

  constructor(situation: Situation) {
    this.situation = situation;
    this.topology = situation.topology;
  }

  run(command: MetaCommand): boolean {
    const { topology, result } = applyCommand(this.topology, { command });
    if (result.kind === 'refused' || !result.changed) return false;
    this.topology = topology;
    this.commands.push(command);
    return true;
  }

  end(id: number, state: OperationRecord['state'], progress: string): void {
    this.run({ kind: 'endOperation', id, state, progress, nowMs: this.situation.wallMs });
  }

  isConnected(id: NodeId): boolean {
    return this.situation.seen.get(id)?.connected === true;
  }

  /** What is placed on a node that is not heard just now would only have to be placed again. */
  get placeable(): Topology {
    const { nodes } = this.topology;
    return {
      ...this.topology,
      nodes: nodes.map((node) =>
        node.state === 'up' && !this.isConnected(node.id) ? { ...node, state: 'suspect' } : node,
      ),
    };
  }

  /** Repairs that may be begun besides those under way. */
  get repairsLeft(): number {
    const { reports } = this.situation;
    const building = this.topology.shards.filter((shard) => {
      const report = reports.get(shard.id);
      if (report === undefined || replacementOf(this.topology, shard.id) !== undefined)
        return false;
      // On a node that is away nothing is built: counting it would hold back its own replacement.
      return shard.replicas.some(
        ({ replica, node }) => !report.voters.includes(replica) && this.isConnected(node),
      );
    });
    const running = runningReplacements(this.topology).length + building.length;
    return repairsMaxOf(this.topology) - running;
  }
}

// ---- nodes

function decideNodeStates(plan: Plan): void {
  const { situation } = plan;
  for (const { id: node, state } of situation.topology.nodes) {
    if (state === 'removed' || state === 'draining') continue;
    const next = nextState(situation, node, state);
    if (next !== undefined)
      plan.run({ kind: 'setNodeState', node, state: next, nowMs: situation.wallMs });
  }
}

/** From down it goes nowhere but up: that a leader is new makes no node less down. */
function nextState(
  surroundings: Surroundings,
  node: NodeId,
  state: 'up' | 'suspect' | 'down',
): 'up' | 'suspect' | 'down' | undefined {
  const sight = surroundings.seen.get(node);
  if (sight === undefined) return undefined;
  if (sight.connected) return 'up';
  const { suspectAfterMs = Infinity, downAfterMs = Infinity } = surroundings.topology.settings;
  const silentMs = silenceOf(surroundings, node);
  if (silentMs >= downAfterMs) return 'down';
  return silentMs >= suspectAfterMs && state === 'up' ? 'suspect' : undefined;
}

/** ms without a connection, as far as they count; 0 for a node that is connected or not looked at. */
function silenceOf({ seen, nowMs, leadingSinceMs }: Surroundings, node: NodeId): number {
  const sight = seen.get(node);
  if (sight === undefined || sight.connected) return 0;
  return Math.max(0, nowMs - Math.max(sight.sinceMs, leadingSinceMs));
}

/** Down for so long that its replicas are to be built anew. */
function isLost(surroundings: Surroundings, { id, state }: NodeRecord): boolean {
  const { replaceAfterMs = Infinity } = surroundings.topology.settings;
  return (
    (state === 'down' || state === 'draining') && silenceOf(surroundings, id) >= replaceAfterMs
  );
}

// ---- replacements under way

function decideReplacement(plan: Plan, operation: OperationRecord): void {
  const { replacement } = operation;
  if (replacement === undefined) return;
  const report = plan.situation.reports.get(replacement.shard);
  const shard = shardRecordOf(plan.topology, replacement.shard);
  if (report === undefined || shard === undefined) return;
  const { to } = replacement;
  if (isSettled(shard, report)) {
    plan.end(operation.id, 'done', `replica ${to.replica} on node ${to.node} has its place`);
    return;
  }
  const isVoter = report.voters.includes(to.replica);
  // Until its successor is a voter, the old replica has not begun to leave.
  if (!isVoter && isBack(plan.topology, operation, replacement)) {
    plan.end(operation.id, 'cancelled', `node ${replacement.from.node} is back`);
    return;
  }
  const failure = failureOf(plan, replacement, report);
  const stage = stageOf(replacement, report);
  if (failure !== undefined) plan.end(operation.id, 'failed', `${failure}: another node is tried`);
  else if (stage !== undefined) plan.end(operation.id, 'running', stage);
}

/**
 * The node came up after the replacement was begun. A replica may also be moved away from a node that
 * was up all the time; then somebody wanted that.
 */
function isBack(topology: Topology, { sinceMs }: OperationRecord, { from }: Replacement): boolean {
  const node = nodeOf(topology, from.node);
  return node?.state === 'up' && node.stateSinceMs >= sinceMs;
}

/** Why the new replica will not become what it is to be. */
function failureOf(
  { situation, topology }: Plan,
  { from, to }: Replacement,
  { voters }: ShardReport,
): string | undefined {
  // It is to come back to its place, so it must have it still.
  if (!voters.includes(from.replica)) return undefined;
  const { downAfterMs = Infinity } = topology.settings;
  if (silenceOf(situation, to.node) >= downAfterMs) return `node ${to.node} went down meanwhile`;
  const isDraining = nodeOf(topology, to.node)?.state === 'draining';
  return isDraining && !voters.includes(to.replica)
    ? `node ${to.node} is being drained by now`
    : undefined;
}

/** Undefined as long as the shard has not begun. */
function stageOf({ from, to }: Replacement, { voters, learners }: ShardReport): string | undefined {
  if (voters.includes(to.replica))
    return `replica ${to.replica} is a voter, replica ${from.replica} is leaving`;
  return learners.includes(to.replica) ? `replica ${to.replica} is catching up` : undefined;
}

// ---- new replacements and additions

type Reason = 'lost' | 'draining';

interface Candidate {
  readonly shard: ShardRecord;
  readonly from: ReplicaRecord;
  /** Connected replicas: the fewer there are, the more urgent it is. */
  readonly live: number;
}

function startReplacements(plan: Plan, reason: Reason): void {
  let left = plan.repairsLeft;
  if (left <= 0) return;
  const leaving = new Set(
    plan.topology.nodes.filter((node) => isLeaving(plan, node, reason)).map(({ id }) => id),
  );
  if (leaving.size === 0) return;
  const candidates = plan.topology.shards
    .map((shard) => candidateOf(plan, shard, leaving, reason))
    .filter((candidate) => candidate !== undefined)
    .toSorted((a, b) => a.live - b.live);
  const { wallMs: nowMs } = plan.situation;
  for (const { shard, from } of candidates) {
    if (left <= 0) return;
    const to = placeFor(plan, shard, from.node);
    if (to === undefined) continue;
    // Counted again: one whose replica votes no more counted as a repair before.
    if (plan.run({ kind: 'replaceReplica', shard: shard.id, from: from.node, to, nowMs }))
      left = plan.repairsLeft;
  }
}

function isLeaving({ situation }: Plan, node: NodeRecord, reason: Reason): boolean {
  const lost = isLost(situation, node);
  return reason === 'lost' ? lost : node.state === 'draining' && !lost;
}

function candidateOf(
  plan: Plan,
  shard: ShardRecord,
  leaving: ReadonlySet<NodeId>,
  reason: Reason,
): Candidate | undefined {
  const from = shard.replicas.find(({ node }) => leaving.has(node));
  const report = plan.situation.reports.get(shard.id);
  if (from === undefined || report === undefined) return undefined;
  if (replacementOf(plan.topology, shard.id) !== undefined) return undefined;
  const others = shard.replicas.filter((each) => each !== from);
  if (!others.every(({ replica }) => report.voters.includes(replica))) return undefined;
  // The shard lets strangers go by itself, once all that are named vote. One that is lost and does not
  // vote never will: a replacement was cancelled as its last step was taken, and the node went again.
  if (hasStrangers(shard, report) && report.voters.includes(from.replica)) return undefined;
  const live = others.filter(({ node }) => plan.isConnected(node)).length;
  // For a while there is one voter more, and the majority larger. Without need, that is not done to a
  // shard which lacks somebody; to repair it, those who are left must be able to decide.
  const isSafe = reason === 'draining' ? live === others.length : 2 * live > shard.replicas.length;
  return isSafe ? { shard, from, live } : undefined;
}

/** Shards that have fewer replicas than they are to have, because a node was removed by force. */
function startAdditions(plan: Plan): void {
  for (const shard of plan.topology.shards.filter(lacks)) {
    const report = plan.situation.reports.get(shard.id);
    if (report === undefined || replacementOf(plan.topology, shard.id) !== undefined) continue;
    const live = shard.replicas.filter(({ node }) => plan.isConnected(node)).length;
    if (!isSettled(shard, report) || 2 * live <= shard.replicas.length) continue;
    if (plan.repairsLeft <= 0) return;
    const node = placeFor(plan, shard);
    if (node !== undefined) plan.run({ kind: 'addReplica', shard: shard.id, node });
  }
}

function placeFor(plan: Plan, shard: ShardRecord, leaving?: NodeId): NodeId | undefined {
  const { placeable } = plan;
  // Placement counts all replicas there are: not for each of a thousand shards that cannot move.
  if (!hasFreeHost(placeable, shard, leaving)) return undefined;
  const wanted = successorOf(plan.topology, shard, leaving);
  // It is waited for while it is only away for a moment.
  if (wanted !== undefined) return nodeOf(placeable, wanted)?.state === 'up' ? wanted : undefined;
  return placeReplacement(placeable, shard.id, leaving);
}

/** Where the drain of `leaving` brings this shard's replica; undefined: anywhere. */
function successorOf(topology: Topology, shard: ShardRecord, leaving?: NodeId): NodeId | undefined {
  const to = leaving === undefined ? undefined : runningDrain(topology, leaving)?.to;
  const node = to === undefined ? undefined : nodeOf(topology, to);
  if (node === undefined || (node.state !== 'up' && node.state !== 'suspect')) return undefined;
  const isTaken = presentReplicas(topology, shard).some(({ node: id }) => {
    const other = nodeOf(topology, id);
    return other !== undefined && id !== leaving && hostOf(other) === hostOf(node);
  });
  return isTaken ? undefined : node.id;
}

/** A node is up on a host where nobody else of the shard is. */
function hasFreeHost(topology: Topology, shard: ShardRecord, leaving?: NodeId): boolean {
  const taken = new Set<string>();
  for (const { node: id } of presentReplicas(topology, shard)) {
    const node = nodeOf(topology, id);
    if (node !== undefined && id !== leaving) taken.add(hostOf(node));
  }
  return topology.nodes.some(
    (node) => node.state === 'up' && node.id !== leaving && !taken.has(hostOf(node)),
  );
}

// ---- the metadata group

function wantedMetadata(surroundings: Surroundings): readonly NodeId[] | undefined {
  return nextMetadata(metadataSurroundings(surroundings, undefined));
}

function metadataSurroundings(
  surroundings: Surroundings,
  report: ShardReport | undefined,
): MetadataSurroundings {
  const { topology, seen } = surroundings;
  const voters = topology.metadata.filter(({ replica }) => report?.voters.includes(replica));
  return {
    topology,
    isConnected: (node) => seen.get(node)?.connected === true,
    isLeaving: (node) => node.state === 'draining' || isLost(surroundings, node),
    isVoter: (id) => report === undefined || voters.some(({ node }) => node === id),
  };
}

/** One change at a time: all that are named vote, but for those who leave before they could. */
function decideMetadata(plan: Plan): void {
  const { situation, topology } = plan;
  const report = situation.reports.get(metadataGroup);
  if (report === undefined || repairsMaxOf(topology) === 0) return;
  const surroundings = metadataSurroundings({ ...situation, topology }, report);
  const pending = topology.nodes.filter(
    ({ id }) => topology.metadata.some(({ node }) => node === id) && !surroundings.isVoter(id),
  );
  const mayMove =
    pending.length > 0
      ? pending.every(surroundings.isLeaving)
      : !hasStrangers({ replicas: topology.metadata }, report);
  const nodes = mayMove ? nextMetadata(surroundings) : undefined;
  if (nodes !== undefined) plan.run({ kind: 'setMetadata', nodes });
}

// ---- drains

function decideDrain(plan: Plan, { id, node }: OperationRecord): void {
  const { topology } = plan;
  if (node === undefined) return;
  const left = topology.shards.filter((shard) =>
    presentReplicas(topology, shard).some((each) => each.node === node),
  );
  const hasMetadata = topology.metadata.some((each) => each.node === node);
  // The group may be moving for others, too: that is nothing to this node.
  const isLeaving = !hasMetadata && plan.situation.metadataNodes.includes(node);
  if (left.length === 0 && !hasMetadata && !isLeaving) {
    plan.end(id, 'done', 'no replicas are left on it: it may be removed');
    return;
  }
  const parts = [
    ...(left.length === 0 ? [] : [leftOf(plan, node, left)]),
    ...(hasMetadata ? ['its replica of the metadata group waits for a node of another host'] : []),
    ...(isLeaving ? ['its replica of the metadata group is moving'] : []),
  ];
  plan.end(id, 'running', parts.join('; '));
}

function leftOf(plan: Plan, node: NodeId, left: readonly ShardRecord[]): string {
  const moving = left.filter(({ id }) => replacementOf(plan.topology, id)?.from.node === node);
  const shown = left.slice(0, 8).map(({ id }) => id);
  const more = left.length > shown.length ? ` and ${left.length - shown.length} more` : '';
  const start = `${left.length} left, of shards ${shown.join(', ')}${more}; ${moving.length} moving`;
  if (moving.length > 0) return start;
  if (repairsMaxOf(plan.topology) === 0) return `${start}: repairsMax is 0, which pauses them`;
  const isPlaced = left.some((shard) => hasFreeHost(plan.placeable, shard, node));
  return isPlaced ? start : `${start}: no node of another host is up, add one`;
}

// ---- what is asked of shards

/** The members are those that the topology names, all of them voters. */
function isSettled(shard: Pick<ShardRecord, 'replicas'>, report: ShardReport): boolean {
  return (
    !hasStrangers(shard, report) &&
    shard.replicas.every(({ replica }) => report.voters.includes(replica))
  );
}

/** A member that the topology does not name: it is on its way out, or the report is old. */
function hasStrangers(
  { replicas }: Pick<ShardRecord, 'replicas'>,
  { voters, learners }: ShardReport,
): boolean {
  const isNamed = (id: ReplicaId): boolean => replicas.some(({ replica }) => replica === id);
  return !voters.every(isNamed) || !learners.every(isNamed);
}

function lacks({ replicas, replication }: ShardRecord): boolean {
  return replicas.length < replication;
}

function isFounder({ founders }: ShardRecord, { replica }: ReplicaRecord): boolean {
  return founders.some((founder) => founder.replica === replica);
}

function runningReplacements({ operations }: Topology): readonly Replacement[] {
  return operations.flatMap(({ state, replacement }) =>
    state === 'running' && replacement !== undefined ? [replacement] : [],
  );
}

function repairsMaxOf({ settings }: Topology): number {
  return settings['repairsMax'] ?? 0;
}
