/**
 * Changes of the cluster, asked for at any node: carried out here when this node leads the metadata
 * group, else passed on to the one that does, one hop.
 */
import type { ChangeClusterReply, ChangeClusterRequest } from '../../proto/messages.js';
import type { ClusterView } from '../cluster/cluster-view.js';
import type { Metadata } from '../cluster/metadata.js';
import { KvError } from '../errors.js';
import { parseMetaCommand, type MetaCommand } from '../meta/meta-machine.js';
import type { Clock } from '../observe/clock.js';
import { invalid } from './convert.js';
import type { NodeLink } from './node-link.js';
import { toKvError } from './status.js';

export interface MetadataDoorOptions {
  readonly metadata: Metadata;
  /** Client address of a node, also before there is a topology; undefined when it is not known. */
  readonly addressOf: (node: number) => string | undefined;
  readonly view: ClusterView;
  readonly link: NodeLink;
  readonly clock: Clock;
}

/** Where there is no leader just now, this often and this long, ms. */
const retryMs = 100;
const patienceMs = 5000;

export class MetadataDoor {
  private readonly options: MetadataDoorOptions;

  constructor(options: MetadataDoorOptions) {
    this.options = options;
  }

  /**
   * `text`: a command as JSON, without nowMs; `ifVersion`: refused at any other version of the topology,
   * 0: at none. Rejects with KvError; a refusal is KV_INVALID.
   */
  async changeText(text: string, forwarded: boolean, ifVersion = 0): Promise<ChangeClusterReply> {
    let command: MetaCommand;
    try {
      const fields: unknown = JSON.parse(text);
      const nowMs = Math.floor(this.options.clock.wallMs());
      command = parseMetaCommand(fields, nowMs);
    } catch (error) {
      throw invalid(`the command is malformed: ${error instanceof Error ? error.message : ''}`);
    }
    return this.change(command, { command: text, ifVersion }, forwarded);
  }

  private async change(
    command: MetaCommand,
    request: ChangeClusterRequest,
    forwarded: boolean,
  ): Promise<ChangeClusterReply> {
    const { metadata, link, clock } = this.options;
    const deadline = clock.monotonicMs() + patienceMs;
    for (let turn = 0; ; turn++) {
      try {
        if (metadata.isLeader) {
          const { version, changed, issued } = await metadata.run(command, request.ifVersion);
          return { version, changed, issued: JSON.stringify(issued) };
        }
        if (forwarded) throw notLeader();
        const addresses = this.addresses();
        const address = addresses[turn % Math.max(1, addresses.length)];
        if (address === undefined) throw notLeader();
        return await link.changeCluster(address, request);
      } catch (error) {
        const problem = toKvError(error);
        const passing = problem.code === 'KV_NOT_LEADER' || problem.code === 'KV_UNAVAILABLE';
        if (forwarded || !passing || clock.monotonicMs() > deadline) throw problem;
        await new Promise<void>((resolve) => {
          clock.after(retryMs, resolve);
        });
      }
    }
  }

  /** Client addresses of the nodes with the metadata group, its leader first as far as known. */
  private addresses(): readonly string[] {
    const { metadata, view, addressOf } = this.options;
    const leader = metadata.leaderNode;
    const nodes = view.topology.metadata.map(({ node }) => node);
    const sorted = leader === undefined ? nodes : [leader, ...nodes.filter((n) => n !== leader)];
    return sorted.map(addressOf).filter((each) => each !== undefined);
  }
}

function notLeader(): KvError {
  return new KvError('the metadata group has no leader that could be reached: try again', {
    code: 'KV_UNAVAILABLE',
    outcome: 'notApplied',
    retryAfterMs: 200,
  });
}
