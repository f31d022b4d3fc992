/** Admin calls from this node to others, over the connections that forwarded requests use. */
import { codecOf, type Codec } from '../../proto/definitions.js';
import type {
  ChangeClusterReply,
  ChangeClusterRequest,
  GetTopologyRequest,
  JoinReply,
  JoinRequest,
  StatusReply,
  ShardFiguresReply,
  ShardFiguresRequest,
  StatusRequest,
  StepMigrationReply,
  StepMigrationRequest,
  TakeHashReply,
  TakeHashRequest,
  TopologyReply,
  TransferLeaderReply,
  TransferLeaderRequest,
} from '../../proto/messages.js';
import { KvError } from '../errors.js';
import type { Clock } from '../observe/clock.js';
import type { NodeCalls } from './forwarder.js';
import { toKvError } from './status.js';

interface AdminCall<Q, R> {
  readonly path: string;
  readonly request: Codec<Q>;
  readonly reply: Codec<R>;
}

const admin = <Q extends object, R extends object>(
  method: string,
  request: string,
  reply: string,
): AdminCall<Q, R> => ({
  path: `/quorate.v1.Admin/${method}`,
  request: codecOf<Q>(`quorate.v1.${request}`),
  reply: codecOf<R>(`quorate.v1.${reply}`),
});

const calls = {
  join: admin<JoinRequest, JoinReply>('Join', 'JoinRequest', 'JoinReply'),
  changeCluster: admin<ChangeClusterRequest, ChangeClusterReply>(
    'ChangeCluster',
    'ChangeClusterRequest',
    'ChangeClusterReply',
  ),
  getTopology: admin<GetTopologyRequest, TopologyReply>(
    'GetTopology',
    'GetTopologyRequest',
    'TopologyReply',
  ),
  status: admin<StatusRequest, StatusReply>('Status', 'StatusRequest', 'StatusReply'),
  transferLeader: admin<TransferLeaderRequest, TransferLeaderReply>(
    'TransferLeader',
    'TransferLeaderRequest',
    'TransferLeaderReply',
  ),
  shardFigures: admin<ShardFiguresRequest, ShardFiguresReply>(
    'ShardFigures',
    'ShardFiguresRequest',
    'ShardFiguresReply',
  ),
  stepMigration: admin<StepMigrationRequest, StepMigrationReply>(
    'StepMigration',
    'StepMigrationRequest',
    'StepMigrationReply',
  ),
  takeHash: admin<TakeHashRequest, TakeHashReply>('TakeHash', 'TakeHashRequest', 'TakeHashReply'),
} as const;

const timeoutMs = 2000;

/** Every method rejects with KvError; nothing is tried twice. */
export class NodeLink {
  private readonly forwarder: NodeCalls;
  private readonly clock: Clock;

  constructor(forwarder: NodeCalls, clock: Clock) {
    this.forwarder = forwarder;
    this.clock = clock;
  }

  join(address: string, request: JoinRequest): Promise<JoinReply> {
    return this.call(address, calls.join, request, { asOrigin: true });
  }

  changeCluster(address: string, request: ChangeClusterRequest): Promise<ChangeClusterReply> {
    return this.call(address, calls.changeCluster, request);
  }

  /** Without a document when the version there is `knownVersion`. */
  topology(address: string, knownVersion = 0): Promise<TopologyReply> {
    return this.call(address, calls.getTopology, { knownVersion });
  }

  status(address: string): Promise<StatusReply> {
    return this.call(address, calls.status, {});
  }

  transferLeader(address: string, request: TransferLeaderRequest): Promise<TransferLeaderReply> {
    return this.call(address, calls.transferLeader, request);
  }

  takeHash(address: string, request: TakeHashRequest): Promise<TakeHashReply> {
    return this.call(address, calls.takeHash, request);
  }

  shardFigures(address: string, request: ShardFiguresRequest): Promise<ShardFiguresReply> {
    return this.call(address, calls.shardFigures, request);
  }

  /** `withinMs`: until the reply is here. */
  stepMigration(
    address: string,
    request: StepMigrationRequest,
    withinMs: number,
  ): Promise<StepMigrationReply> {
    return this.call(address, calls.stepMigration, request, { withinMs });
  }

  private call<Q, R>(
    address: string,
    { path, request, reply }: AdminCall<Q, R>,
    message: Q,
    { asOrigin = false, withinMs = timeoutMs } = {},
  ): Promise<R> {
    return new Promise((resolve, reject) => {
      const call = {
        deadlineMs: this.clock.monotonicMs() + withinMs,
        forwarded: false,
        ended: false,
        mayHaveApplied: false,
      };
      const bytes = request.encode(message);
      // A connection to a node that is cut off does not break by itself for minutes.
      const cancel = this.clock.after(withinMs, () => {
        const text = `node at ${address}: no answer within ${Math.round(withinMs)} ms`;
        reject(new KvError(text, { code: 'KV_DEADLINE', outcome: 'unknown' }));
      });
      const onward = { address, path, request: bytes, call, asOrigin };
      this.forwarder.forward(onward, (error, answer) => {
        cancel();
        if (error !== undefined) reject(error);
        else
          try {
            resolve(reply.decode(answer ?? new Uint8Array()));
          } catch (malformed) {
            reject(toKvError(malformed));
          }
      });
    });
  }
}
