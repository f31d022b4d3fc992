/**
 * grpc.health.v1: '' and 'quorate.v1.KV' for the node, 'shard/1' and so on for its replicas. A shard
 * that leaves the node is unknown afterwards. (The library's own implementation forgets no name.)
 */
import { status, type ServerUnaryCall, type ServerWritableStream } from '@grpc/grpc-js';
import type { sendUnaryData, Server, ServiceDefinition } from '@grpc/grpc-js';
import { service } from 'grpc-health-check';

type ServingStatus = 'SERVING' | 'NOT_SERVING';

interface HealthRequest {
  readonly service: string;
}
interface HealthReply {
  readonly status: ServingStatus | 'SERVICE_UNKNOWN';
}
type WatchCall = ServerWritableStream<HealthRequest, HealthReply>;

/** What the node as a whole is called. */
const nodeServices = ['', 'quorate.v1.KV'];

/** Watchers of all names together. */
export const watchersMax = 1000;

/** What health asks of a replica of a shard. */
export interface ReplicaState {
  readonly id: number;
  readonly isRestoring: boolean;
  readonly leaderNode: number | undefined;
}

export class Health {
  /** Whether each replica of this node can serve. */
  private readonly shards = new Map<number, boolean>();
  private readonly statuses = new Map<string, ServingStatus>();
  private readonly watchers = new Set<WatchCall>();

  addTo(server: Server): void {
    const definition: ServiceDefinition = service;
    server.addService(definition, {
      check: (
        { request }: ServerUnaryCall<HealthRequest, HealthReply>,
        callback: sendUnaryData<HealthReply>,
      ) => {
        const found = this.statuses.get(request.service);
        if (found !== undefined) callback(null, { status: found });
        else callback({ code: status.NOT_FOUND, details: `no service '${request.service}' here` });
      },
      watch: (call: WatchCall) => {
        this.watch(call);
      },
      list: (_call: unknown, callback: sendUnaryData<object>) => {
        const statuses = [...this.statuses].map(([name, found]) => [name, { status: found }]);
        callback(null, { statuses: Object.fromEntries(statuses) });
      },
    });
  }

  /** How many calls are told of changes. */
  get watching(): number {
    return this.watchers.size;
  }

  /** What is so now; called again and again. `serving`: the node as a whole. */
  update(serving: boolean, replicas: readonly ReplicaState[]): void {
    for (const name of nodeServices) this.set(name, statusOf(serving));
    for (const { id, isRestoring, leaderNode } of replicas)
      this.setShard(id, !isRestoring && leaderNode !== undefined);
    if (this.shards.size <= replicas.length) return;
    const present = new Set(replicas.map(({ id }) => id));
    for (const id of this.shards.keys()) if (!present.has(id)) this.setShard(id, undefined);
  }

  /** The node is about to stop. */
  leave(): void {
    for (const name of this.statuses.keys()) this.set(name, 'NOT_SERVING');
  }

  /** Undefined: the replica has left this node. Costs nothing when it changes nothing. */
  private setShard(id: number, serves: boolean | undefined): void {
    if (this.shards.get(id) === serves) return;
    if (serves === undefined) this.shards.delete(id);
    else this.shards.set(id, serves);
    this.set(`shard/${id}`, serves === undefined ? undefined : statusOf(serves));
  }

  /** Undefined: there is no such service any more. */
  private set(name: string, serves: ServingStatus | undefined): void {
    if (this.statuses.get(name) === serves) return;
    if (serves === undefined) this.statuses.delete(name);
    else this.statuses.set(name, serves);
    for (const call of this.watchers) if (call.request.service === name) this.tell(call);
  }

  private watch(call: WatchCall): void {
    if (this.watchers.size >= watchersMax) {
      call.emit('error', { code: status.RESOURCE_EXHAUSTED, details: 'too many watchers' });
      return;
    }
    this.watchers.add(call);
    const leave = (): void => {
      this.watchers.delete(call);
    };
    call.on('cancelled', leave);
    call.on('error', leave);
    this.tell(call);
  }

  private tell(call: WatchCall): void {
    call.write({ status: this.statuses.get(call.request.service) ?? 'SERVICE_UNKNOWN' });
  }
}

function statusOf(serves: boolean): ServingStatus {
  return serves ? 'SERVING' : 'NOT_SERVING';
}
