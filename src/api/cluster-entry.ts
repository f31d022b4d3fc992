/** How a cluster is made of its first nodes, and how others join it: answered by any node of it. */
import type { InitClusterRequest, JoinRequest } from '../../proto/messages.js';
import type { ClusterView } from '../cluster/cluster-view.js';
import { formatAddress } from '../config/address.js';
import type { Config } from '../config/config.js';
import type { Identity } from '../config/identity.js';
import { KvError } from '../errors.js';
import type { Issued } from '../meta/commands.js';
import type { Topology } from '../meta/topology.js';
import type { Clock } from '../observe/clock.js';
import type { MetadataDoor } from './metadata-door.js';

export interface ClusterEntryOptions {
  readonly config: Config;
  readonly identity: Pick<Identity, 'nodeId' | 'directoryId' | 'known'>;
  readonly door: MetadataDoor;
  readonly view: ClusterView;
  readonly clock: Clock;
}

/** For a change that was carried out elsewhere to be known here, ms. */
const patienceMs = 5000;

export class ClusterEntry {
  private readonly options: ClusterEntryOptions;

  constructor(options: ClusterEntryOptions) {
    this.options = options;
  }

  async init({ shards, replicas }: InitClusterRequest, forwarded: boolean): Promise<Topology> {
    const { config, door } = this.options;
    const command = {
      kind: 'init',
      clusterId: config.clusterId,
      nodes: config.initialCluster.map(({ node, peer, client }) => ({
        id: node,
        directoryId: this.directoryOf(node),
        peerAddress: formatAddress(peer),
        clientAddress: formatAddress(client),
        labels: {},
        weight: 100,
      })),
      metadata: config.initialCluster.map(({ node }) => ({ replica: node, node })),
      shards,
      replication: replicas,
    };
    const { version } = await door.changeText(JSON.stringify(command), forwarded);
    return this.topologyAt(version);
  }

  async join(
    request: JoinRequest,
    forwarded: boolean,
  ): Promise<{ nodeId: number; topology: Topology }> {
    const { config, door } = this.options;
    const { clusterId, directoryId, peerAddress, clientAddress, labels, weight } = request;
    if (clusterId !== config.clusterId) {
      throw new KvError(
        `this is cluster '${config.clusterId}', not '${clusterId}': correct --join or --cluster-id`,
        { code: 'KV_INVALID', outcome: 'notApplied' },
      );
    }
    const command = {
      kind: 'addNode',
      directoryId: Buffer.from(directoryId).toString('hex'),
      peerAddress,
      clientAddress,
      labels: Object.fromEntries(labels.map((label) => label.split('=', 2))),
      weight,
    };
    const { version, issued } = await door.changeText(JSON.stringify(command), forwarded);
    const { node = 0 } = JSON.parse(issued) as Issued;
    return { nodeId: node, topology: await this.topologyAt(version) };
  }

  /** The topology once this node knows this version of it, or a later one. */
  private async topologyAt(version: number): Promise<Topology> {
    const { clock, view } = this.options;
    const deadline = clock.monotonicMs() + patienceMs;
    while (view.version < version && clock.monotonicMs() < deadline) {
      await new Promise<void>((resolve) => {
        clock.after(20, resolve);
      });
    }
    return view.topology;
  }

  /** Hexadecimal. A first node must have been heard once before a cluster is made of it. */
  private directoryOf(node: number): string {
    const { identity } = this.options;
    const known = node === identity.nodeId ? identity.directoryId : identity.known(node);
    if (known !== undefined) return Buffer.from(known).toString('hex');
    throw new KvError(`node ${node} has not been heard yet: start it, then try again`, {
      code: 'KV_UNAVAILABLE',
      outcome: 'notApplied',
      retryAfterMs: 200,
    });
  }
}
