/**
 * grpc.health.v1: '' and 'quorate.v1.KV' for the node, 'shard/1' and so on for its replicas. A shard
 * that leaves the node is unknown afterwards. (The library's own implementation forgets no name.)
 */
import { status, type ServerUnaryCall, type ServerWritableStream } from '@grpc/grpc-js';
import type { sendUnaryData, Server, ServiceDefinition } from '@grpc/grpc-js';
import { service } from 'grpc-health-check';

export type ServingStatus = 'SERVING' | 'NOT_SERVING';

interface HealthRequest {
  readonly service: string;
}
interface HealthReply {
  readonly status: ServingStatus | 'SERVICE_UNKNOWN';
}
type WatchCall = ServerWritableStream<HealthRequest, HealthReply>;

/** Watchers of all names together. */
export const watchersMax = 1000;

export class Health {
  /** Whether each replica of this node can serve. */
  readonly shards: ReadonlyMap<number, boolean>;
  private readonly shardsServe = new Map<number, boolean>();
  private readonly statuses = new Map<string, ServingStatus>();
  private readonly watchers = new Set<WatchCall>();

  constructor() {
    this.shards = this.shardsServe;
  }

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

  names(): readonly string[] {
    return [...this.statuses.keys()];
  }

  /** How many calls are told of changes. */
  get watching(): number {
    return this.watchers.size;
  }

  /** Undefined: there is no such service any more. Costs nothing when it changes nothing. */
  set(name: string, serves: ServingStatus | undefined): void {
    if (this.statuses.get(name) === serves) return;
    if (serves === undefined) this.statuses.delete(name);
    else this.statuses.set(name, serves);
    for (const call of this.watchers) if (call.request.service === name) this.tell(call);
  }

  /** Undefined: the replica has left this node. Called for each of them again and again: cheap. */
  setShard(id: number, serves: boolean | undefined): void {
    if (this.shardsServe.get(id) === serves) return;
    if (serves === undefined) this.shardsServe.delete(id);
    else this.shardsServe.set(id, serves);
    const serving = serves === true ? 'SERVING' : 'NOT_SERVING';
    this.set(`shard/${id}`, serves === undefined ? undefined : serving);
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
