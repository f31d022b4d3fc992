/** The clients of a run: loops that carry out a workload at a steady pace, whatever breaks. */
import { QuorateClient, ReadLevel } from '../src/client/index.js';
import type { Random } from './random.js';
import type { Recorder } from './recorder.js';
import { sleep } from './shell.js';
import { actorOf, type Actor, type Workload } from './workloads/workload.js';

export interface ClientsOptions {
  readonly endpoints: readonly string[];
  readonly clients: number;
  /** Operations a second of all clients together, at most. */
  readonly rate: number;
  readonly timeoutMs: number;
  /** Every other client reads on a lease. */
  readonly leases: boolean;
  readonly random: Random;
  readonly recorder: Recorder;
  readonly workload: Workload;
}

/** Actors that share a connection to each node. */
const actorsPerConnection = 4;

export class Clients {
  readonly actors: readonly Actor[];
  private readonly options: ClientsOptions;
  private readonly connections: readonly QuorateClient[];

  constructor(options: ClientsOptions) {
    const { endpoints, clients, timeoutMs, leases, random, recorder } = options;
    this.options = options;
    const count = Math.ceil(clients / actorsPerConnection);
    // Calls of their own and batches take different ways through the client and the node.
    this.connections = Array.from(
      { length: count },
      (_, n) => new QuorateClient({ endpoints, timeoutMs, batching: n % 2 === 0 }),
    );
    this.actors = Array.from({ length: clients }, (_, client) => {
      const kv = this.connections[client % count];
      if (kv === undefined) throw new RangeError('a client without a connection');
      const level = leases && client % 2 === 0 ? ReadLevel.LEASE : ReadLevel.LINEARIZABLE;
      return actorOf({ client, kv, random: random.split(`client ${client}`), level, recorder });
    });
  }

  /** Until `signal` says so and everything under way has ended. Rejects for errors of the test. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.actors.map((actor) => this.loop(actor, signal)));
  }

  close(): void {
    for (const client of this.connections) client.close();
  }

  private async loop(actor: Actor, signal: AbortSignal): Promise<void> {
    const { clients, rate, workload } = this.options;
    const meanMs = (1000 * clients) / rate;
    while (!signal.aborted) {
      const begunAt = performance.now();
      await workload.step(actor);
      const wanted = meanMs * 2 * actor.random.next();
      const left = wanted - (performance.now() - begunAt);
      // A turn of the event loop at least: an operation that fails at once must not starve the others.
      await sleep(Math.max(0, left));
    }
  }
}
