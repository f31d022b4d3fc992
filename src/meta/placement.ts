/**
 * Which nodes a shard's replicas go to: never two on one host, and each node its share by weight, of
 * replicas and of first replicas (the first of a list is whom the shard should be led by). Pure.
 *
 * Hosts are chosen first and a node within each then. Chosen is whoever has least for its weight,
 * counting half of the next replica (Sainte-Laguë's divisors): equal weights end within one of each
 * other, unequal ones in proportion, except that no host can have more than one replica of a shard.
 */
import type { NodeId } from '../../raft/index.js';
import { spreadLeaders } from './leader-spread.js';
import { hostOf, presentReplicas, type NodeRecord, type Topology } from './topology.js';

interface Load {
  readonly weight: number;
  replicas: number;
  firsts: number;
}

interface NodeLoad extends Load {
  readonly id: NodeId;
}

interface HostLoad extends Load {
  readonly name: string;
  readonly nodes: readonly NodeLoad[];
}

export class Placement {
  private readonly hosts: readonly HostLoad[];

  private constructor(hosts: readonly HostLoad[]) {
    this.hosts = hosts;
  }

  /** Over the nodes that are up, with what they have already. */
  static of(topology: Topology): Placement {
    const nodes = topology.nodes.filter(({ state }) => state === 'up').map(emptyLoad);
    const loads = new Map(nodes.map(({ load }) => [load.id, load]));
    for (const { replicas } of topology.shards) {
      replicas.forEach(({ node }, at) => {
        const load = loads.get(node);
        if (load === undefined) return;
        load.replicas++;
        if (at === 0) load.firsts++;
      });
    }
    return new Placement(byHost(nodes));
  }

  /** The most replicas that a shard can have. */
  get hostCount(): number {
    return this.hosts.length;
  }

  /** Nodes for the first shards of a cluster, as `placeShard`, with leaders evened out over all. */
  placeShards(count: number, replication: number): readonly (readonly NodeId[])[] {
    const placed = Array.from({ length: count }, () => this.placeShard(replication));
    const nodes = this.hosts.flatMap((host) => host.nodes);
    return spreadLeaders(placed, new Map(nodes.map(({ id, weight }) => [id, weight])));
  }

  /** Nodes for a new shard, the one to lead it first; counted from now on. */
  placeShard(replication: number): readonly NodeId[] {
    const chosen: { host: HostLoad; node: NodeLoad }[] = [];
    const free = new Set(this.hosts);
    while (chosen.length < replication && free.size > 0) {
      const host = leastLoaded([...free]);
      if (host === undefined) break;
      const node = leastLoaded(host.nodes);
      if (node === undefined) break;
      free.delete(host);
      chosen.push({ host, node });
      host.replicas++;
      node.replicas++;
    }
    return leaderFirst(chosen);
  }

  /** The node that is to get one more replica; `taken`: hosts that must not. */
  placeReplica(taken: ReadonlySet<string>): NodeId | undefined {
    const host = leastLoaded(this.hosts.filter(({ name }) => !taken.has(name)));
    const node = host === undefined ? undefined : leastLoaded(host.nodes);
    if (host === undefined || node === undefined) return undefined;
    host.replicas++;
    node.replicas++;
    return node.id;
  }
}

/**
 * Where a replica of the shard is to be built in place of the one on `leaving`, or in addition;
 * undefined when no host without one is up.
 */
export function placeReplacement(
  topology: Topology,
  shardId: number,
  leaving?: NodeId,
): NodeId | undefined {
  const shard = topology.shards.find(({ id }) => id === shardId);
  if (shard === undefined) return undefined;
  const taken = new Set<string>();
  for (const { node } of presentReplicas(topology, shard)) {
    const record = topology.nodes.find(({ id }) => id === node);
    if (record !== undefined && node !== leaving) taken.add(hostOf(record));
  }
  const others = topology.nodes.filter(({ id }) => id !== leaving);
  return Placement.of({ ...topology, nodes: others }).placeReplica(taken);
}

/** Failure domains among these nodes. */
export function hostsAmong(nodes: readonly NodeRecord[]): number {
  return new Set(nodes.map(hostOf)).size;
}

function emptyLoad(node: NodeRecord): { host: string; load: NodeLoad } {
  return {
    host: hostOf(node),
    load: { id: node.id, weight: node.weight, replicas: 0, firsts: 0 },
  };
}

function byHost(nodes: readonly { host: string; load: NodeLoad }[]): readonly HostLoad[] {
  const groups = new Map<string, NodeLoad[]>();
  for (const { host, load } of nodes) {
    const group = groups.get(host);
    if (group === undefined) groups.set(host, [load]);
    else group.push(load);
  }
  return [...groups].map(([name, members]) => ({
    name,
    nodes: members,
    weight: sum(members, 'weight'),
    replicas: sum(members, 'replicas'),
    firsts: sum(members, 'firsts'),
  }));
}

function sum(loads: readonly Load[], field: keyof Load): number {
  return loads.reduce((total, load) => total + load[field], 0);
}

/** Of equals the one that leads less, then the one that comes first. */
function leastLoaded<L extends Load>(loads: readonly L[]): L | undefined {
  let least: L | undefined;
  for (const load of loads) {
    const by =
      least === undefined
        ? -1
        : (load.replicas + 0.5) / load.weight - (least.replicas + 0.5) / least.weight;
    if (by < 0 || (by === 0 && least !== undefined && fewerFirsts(load, least))) least = load;
  }
  return least;
}

function fewerFirsts(a: Load, b: Load): boolean {
  return (a.firsts + 0.5) / a.weight < (b.firsts + 0.5) / b.weight;
}

function leaderFirst(chosen: { host: HostLoad; node: NodeLoad }[]): readonly NodeId[] {
  let leader = chosen[0];
  if (leader === undefined) return [];
  for (const each of chosen) if (fewerFirsts(each.node, leader.node)) leader = each;
  leader.node.firsts++;
  leader.host.firsts++;
  const first = leader;
  return [first.node.id, ...chosen.filter((each) => each !== first).map(({ node }) => node.id)];
}
