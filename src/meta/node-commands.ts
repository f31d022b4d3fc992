/** Nodes: joining, states, weights, labels, draining and leaving. */
import { nodeId } from '../../raft/index.js';
import type { CommandOf, Refusal } from './commands.js';
import {
  changed,
  companion,
  isRefusal,
  presentNode,
  receivingNode,
  refused,
  unchanged,
  withNode,
  type Effect,
} from './effect.js';
import {
  endDrain,
  endReplacementsOf,
  openOperation,
  runningDrain,
  undrained,
} from './operations.js';
import {
  establishedReplicas,
  hostOf,
  nodeOf,
  presentReplicas,
  type NodeRecord,
  type OperationRecord,
  type ReplicaRecord,
  type Topology,
} from './topology.js';

/** Nodes that are not removed. */
export const nodesMax = 256;
const weightMax = 1000;
const labelsMax = 16;
const labelBytesMax = 128;

type NodeFields = Pick<
  NodeRecord,
  'directoryId' | 'peerAddress' | 'clientAddress' | 'labels' | 'weight'
>;
type Addresses = Pick<NodeRecord, 'peerAddress' | 'clientAddress'>;

/** Keyed by the directory: a join whose reply was lost and that is repeated makes no second node. */
export function applyAddNode(topology: Topology, command: CommandOf<'addNode'>): Effect {
  const { directoryId, peerAddress, clientAddress, labels, weight, nowMs } = command;
  const problem = problemOfNode(command, { anonymous: false });
  if (problem !== undefined) return problem;
  const known = topology.nodes.find((node) => node.directoryId === directoryId);
  if (known !== undefined) return rejoin(topology, known, { peerAddress, clientAddress });
  const founder = topology.nodes.find(
    (node) =>
      node.directoryId === '' &&
      node.state !== 'removed' &&
      node.peerAddress === peerAddress &&
      node.clientAddress === clientAddress,
  );
  if (founder !== undefined)
    return changed(withNode(topology, { ...founder, directoryId }), { node: founder.id });
  const taken = addressTaken(topology, command);
  if (taken !== undefined) return taken;
  if (topology.nodes.filter(({ state }) => state !== 'removed').length >= nodesMax)
    return refused(
      'tooManyNodes',
      `a cluster has ${nodesMax} nodes at most, and this one has them: remove one first`,
    );
  const id = nodeId(topology.next.node);
  const node: NodeRecord = {
    id,
    directoryId,
    peerAddress,
    clientAddress,
    labels: sortedLabels(labels),
    weight,
    state: 'up',
    stateSinceMs: nowMs,
  };
  return changed(
    {
      ...topology,
      nodes: [...topology.nodes, node],
      next: { ...topology.next, node: id + 1 },
    },
    { node: id },
  );
}

/** It may have moved to another address. Its labels and weight are the operators' by now. */
function rejoin(topology: Topology, known: NodeRecord, addresses: Addresses): Effect {
  const node = presentNode(topology, known.id);
  if (isRefusal(node)) return node;
  const { peerAddress, clientAddress } = addresses;
  if (node.peerAddress === peerAddress && node.clientAddress === clientAddress)
    return unchanged({ node: node.id });
  return (
    addressTaken(topology, addresses, node.id) ??
    changed(withNode(topology, { ...node, ...addresses }), { node: node.id })
  );
}

export function applySetNodeState(topology: Topology, command: CommandOf<'setNodeState'>): Effect {
  const node = presentNode(topology, command.node);
  if (isRefusal(node)) return node;
  if (node.state === 'draining')
    return refused(
      'nodeDraining',
      `node ${node.id} is draining, its replicas leave it whether it is up or not: undrain it first`,
    );
  if (node.state === command.state) return unchanged();
  return changed(
    withNode(topology, { ...node, state: command.state, stateSinceMs: command.nowMs }),
  );
}

export function applySetWeight(topology: Topology, command: CommandOf<'setWeight'>): Effect {
  const { weight } = command;
  const node = presentNode(topology, command.node);
  if (isRefusal(node)) return node;
  const problem = problemOfWeight(weight);
  if (problem !== undefined) return problem;
  return node.weight === weight ? unchanged() : changed(withNode(topology, { ...node, weight }));
}

export function applySetLabels(topology: Topology, command: CommandOf<'setLabels'>): Effect {
  const node = presentNode(topology, command.node);
  if (isRefusal(node)) return node;
  const problem = problemOfLabels(command.labels);
  if (problem !== undefined) return problem;
  const labels = sortedLabels(command.labels);
  if (JSON.stringify(labels) === JSON.stringify(node.labels)) return unchanged();
  const labelled = { ...node, labels };
  return companionOnHost(topology, labelled) ?? changed(withNode(topology, labelled));
}

/** A `host` that would be shared with another replica of one of the node's shards. */
function companionOnHost(topology: Topology, labelled: NodeRecord): Refusal | undefined {
  const host = hostOf(labelled);
  for (const shard of topology.shards) {
    const replicas = presentReplicas(topology, shard);
    if (!replicas.some(({ node }) => node === labelled.id)) continue;
    for (const { node } of replicas) {
      const other = nodeOf(topology, node);
      if (other === undefined || other.id === labelled.id || hostOf(other) !== host) continue;
      return refused(
        'sharedHost',
        `node ${labelled.id} would be on the ${host} of node ${other.id}, and both have a replica ` +
          `of shard ${shard.id}: move one of the two replicas first`,
      );
    }
  }
  return undefined;
}

export function applyDrain(topology: Topology, command: CommandOf<'drain'>): Effect {
  const { nowMs } = command;
  const node = presentNode(topology, command.node);
  if (isRefusal(node)) return node;
  const running = runningDrain(topology, node.id);
  if (running !== undefined) return drainedAlready(running, command);
  const to = command.to === undefined ? undefined : successorOf(topology, node, command.to);
  if (to !== undefined && isRefusal(to)) return to;
  const draining = node.state === 'draining';
  const since = draining ? node.stateSinceMs : nowMs;
  const { topology: opened, id: operation } = openOperation(
    withNode(topology, { ...node, state: 'draining', stateSinceMs: since }),
    {
      kind: 'drainNode',
      what: `node ${node.id}: replicas ${to === undefined ? 'leave it' : `move to node ${to.id}`}`,
      node: node.id,
      ...(to === undefined ? {} : { to: to.id }),
    },
    nowMs,
  );
  return changed(opened, { operation });
}

function drainedAlready(running: OperationRecord, { to }: CommandOf<'drain'>): Effect {
  if (to === undefined || to === running.to) return unchanged({ operation: running.id });
  const where = running.to === undefined ? 'to wherever there is room' : `to node ${running.to}`;
  return refused(
    'operationRunning',
    `node ${running.node} is being drained ${where} already: undrain it first`,
  );
}

/** The node that can take all replicas of shards that `leaving` has. */
function successorOf(topology: Topology, leaving: NodeRecord, id: number): NodeRecord | Refusal {
  if (id === leaving.id)
    return refused('badNode', `node ${id} cannot replace itself: name another node`);
  const to = receivingNode(topology, id);
  if (isRefusal(to)) return to;
  for (const { id: shard, replicas } of topology.shards) {
    const others = replicas.filter(({ node }) => node !== leaving.id);
    if (others.length === replicas.length) continue;
    const shared = companion(topology, others, to, `shard ${shard}`);
    if (shared !== undefined) return shared;
  }
  return to;
}

export function applyUndrain(
  topology: Topology,
  { node: id, nowMs }: CommandOf<'undrain'>,
): Effect {
  const node = presentNode(topology, id);
  if (isRefusal(node)) return node;
  if (node.state !== 'draining') return unchanged();
  const ended = endDrain(topology, node.id, { state: 'cancelled', progress: 'undrained' });
  return changed(undrained(ended, node.id, nowMs));
}

export function applyRemoveNode(topology: Topology, command: CommandOf<'removeNode'>): Effect {
  const known = nodeOf(topology, command.node);
  if (known?.state === 'removed') return unchanged();
  const node = presentNode(topology, command.node);
  if (isRefusal(node)) return node;
  const left = replicasOn(topology, node);
  const problem = command.force ? lastReplicaOn(topology, node) : replicasLeft(node, left);
  if (problem !== undefined) return problem;
  const { nowMs } = command;
  const without = withoutReplicas(endReplacementsOf(topology, node.id), node);
  const drained = endDrain(without, node.id, { state: 'done', progress: 'node removed' });
  const { topology: recorded, id: operation } = openOperation(
    withNode(drained, { ...node, state: 'removed', stateSinceMs: nowMs }),
    { kind: 'removeNode', what: `node ${node.id}`, node: node.id },
    nowMs,
    left.length === 0 ? 'had no replicas' : `forced: copies given up: ${left.join(', ')}`,
  );
  return changed(recorded, { operation });
}

/** In words, for people. */
function replicasOn(topology: Topology, { id }: NodeRecord): readonly string[] {
  const shards = topology.shards.filter((shard) =>
    presentReplicas(topology, shard).some(({ node }) => node === id),
  );
  return [
    ...(topology.metadata.some(({ node }) => node === id) ? ['metadata'] : []),
    ...shards.map((shard) => `shard ${shard.id}`),
  ];
}

function replicasLeft(node: NodeRecord, left: readonly string[]): Refusal | undefined {
  if (left.length === 0) return undefined;
  const shown = left.length > 8 ? [...left.slice(0, 8), `${left.length - 8} more`] : left;
  return refused(
    'replicasLeft',
    `node ${node.id} still has replicas of ${shown.join(', ')}: drain it and wait until it is empty. ` +
      'By force these copies are given up at once: a shard whose other copies are behind or lost ' +
      'loses acknowledged writes',
  );
}

/** What nobody else has cannot be given up, not even by force. */
function lastReplicaOn(topology: Topology, { id }: NodeRecord): Refusal | undefined {
  const only = (replicas: readonly ReplicaRecord[]): boolean =>
    replicas.length > 0 && replicas.every(({ node }) => node === id);
  const shard = topology.shards.find((each) => only(establishedReplicas(topology, each)));
  const what = only(topology.metadata)
    ? 'the metadata group'
    : shard === undefined
      ? undefined
      : `shard ${shard.id}`;
  if (what === undefined) return undefined;
  return refused(
    'lastReplica',
    `node ${id} has the only replica of ${what}: add a replica on another node first`,
  );
}

function withoutReplicas(topology: Topology, { id }: NodeRecord): Topology {
  const has = (replicas: readonly ReplicaRecord[]): boolean =>
    replicas.some(({ node }) => node === id);
  const rest = (replicas: readonly ReplicaRecord[]): readonly ReplicaRecord[] =>
    replicas.filter(({ node }) => node !== id);
  return {
    ...topology,
    metadata: has(topology.metadata) ? rest(topology.metadata) : topology.metadata,
    shards: topology.shards.map((shard) =>
      has(shard.replicas) ? { ...shard, replicas: rest(shard.replicas) } : shard,
    ),
  };
}

/** `anonymous`: the directory may still be unknown. */
export function problemOfNode(
  node: NodeFields,
  { anonymous }: { readonly anonymous: boolean },
): Refusal | undefined {
  if (!/^[0-9a-f]{32}$/.test(node.directoryId) && !(anonymous && node.directoryId === ''))
    return refused(
      'badNode',
      `directory id must be 32 hexadecimal digits, got '${node.directoryId}'`,
    );
  return problemOfAddresses(node) ?? problemOfLabels(node.labels) ?? problemOfWeight(node.weight);
}

function problemOfAddresses({ peerAddress, clientAddress }: Addresses): Refusal | undefined {
  for (const address of [peerAddress, clientAddress]) {
    const port = Number(/^\S{1,255}:(\d{1,5})$/.exec(address)?.[1]);
    if (!(port >= 1 && port <= 65_535))
      return refused(
        'badAddress',
        `address must be host:port with port 1 to 65535, got '${address}'`,
      );
  }
  if (peerAddress !== clientAddress) return undefined;
  return refused(
    'badAddress',
    `${peerAddress} is given for peers and for clients: give each a port of its own`,
  );
}

function problemOfLabels(labels: Readonly<Record<string, string>>): Refusal | undefined {
  const entries = Object.entries(labels);
  if (entries.length > labelsMax)
    return refused('badLabels', `${entries.length} labels: a node has ${labelsMax} at most`);
  const bad = entries.find(
    ([name, value]) =>
      !/^[a-z][a-z0-9._/-]{0,62}$/.test(name) ||
      value === '' ||
      Buffer.byteLength(value) > labelBytesMax,
  );
  if (bad === undefined) return undefined;
  return refused(
    'badLabels',
    `label ${bad[0]}=${bad[1]}: names are up to 63 lower-case letters, digits and ._/- with a letter ` +
      `first, values 1 to ${labelBytesMax} bytes`,
  );
}

function problemOfWeight(weight: number): Refusal | undefined {
  if (Number.isInteger(weight) && weight >= 1 && weight <= weightMax) return undefined;
  return refused(
    'badWeight',
    `weight must be an integer from 1 to ${weightMax} (100 is usual), got ${weight}: ` +
      'to empty a node, drain it',
  );
}

/** No two nodes at one address, whichever of the two ports it is. */
export function addressTaken(
  topology: Topology,
  { peerAddress, clientAddress }: Addresses,
  except = 0,
): Refusal | undefined {
  for (const node of topology.nodes) {
    if (node.id === except || node.state === 'removed') continue;
    const taken = [node.peerAddress, node.clientAddress].find(
      (address) => address === peerAddress || address === clientAddress,
    );
    if (taken !== undefined)
      return refused(
        'addressTaken',
        `${taken} is the address of node ${node.id}: give the new node another one, or remove ` +
          `node ${node.id} if it is gone for good`,
      );
  }
  return undefined;
}

/** In one order, so that equal labels are equal bytes. */
export function sortedLabels(
  labels: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)),
  );
}
