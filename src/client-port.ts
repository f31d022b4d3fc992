/** A node's client port with its two doors, health, and the HTTP port. */
import { ClientListener, methodName, type OpenPort } from './api/client-listener.js';
import { GrpcDoor } from './api/grpc-door.js';
import { createGrpcServer, type AdminMethods, type GrpcServer } from './api/grpc-server.js';
import { watchersMax } from './api/health.js';
import { HttpEndpoint } from './api/http-endpoint.js';
import { LeanListener } from './api/lean-listener.js';
import { stepMigrationMethod } from './api/migration-call.js';
import { stepMigrationPath } from './api/unary.js';
import type { ClientServices } from './client-services.js';
import { metricsSource } from './foundations.js';
import type { NodeParts } from './node-parts.js';
import type { NodePicture } from './node-picture.js';
import type { Cancel } from './observe/clock.js';
import { LoopDelayMeter } from './observe/loop-delay.js';
import { Metrics } from './observe/metrics.js';

export interface ClientPortOptions {
  readonly parts: NodeParts;
  readonly picture: NodePicture;
  readonly services: ClientServices;
  readonly adminMethods: AdminMethods;
}

/** A client that ends its connection gets its answers this long, ms. */
const drainMs = 1000;
const healthEveryMs = 200;

export class ClientPort {
  private readonly options: ClientPortOptions;
  private readonly loopDelay = new LoopDelayMeter();
  private grpc: GrpcServer | undefined;
  private listener: OpenPort | undefined;
  private endpoint: HttpEndpoint | undefined;
  private stopHealth: Cancel = () => undefined;

  constructor(options: ClientPortOptions) {
    this.options = options;
  }

  /** Listens; rejects with a message that names the address when somebody else does. */
  async open(): Promise<void> {
    const { parts, services, adminMethods, picture } = this.options;
    const { config, clock, foundations } = parts;
    const { limits, deadlines, unaryMethods, streamMethods } = services;
    this.grpc = createGrpcServer({
      limits,
      clock,
      deadlines,
      unaryMethods,
      streamMethods,
      adminMethods,
    });
    const { open } = config.http2 === 'lean' ? LeanListener : ClientListener;
    this.listener = await open({
      ...config.clientAddress,
      terms: { limits, clock, deadlines },
      unaryMethods: new Map([
        ...(config.unaryDoor === 'http2' ? unaryMethods : []),
        [stepMigrationPath, stepMigrationMethod(adminMethods)],
      ]),
      grpcDoor: new GrpcDoor(this.grpc.server),
      onCall: (path) => foundations.meters.calling(methodName(path)),
    });
    this.endpoint = await HttpEndpoint.open({
      address: config.httpAddress,
      metrics: this.metrics(),
      notReady: () => picture.notReady(),
    });
    const { health } = this.grpc;
    this.stopHealth = clock.every(healthEveryMs, () => {
      const replicas = parts.shards.all().map(({ group }) => group);
      health.update(picture.notReady() === undefined, replicas);
    });
  }

  /** Tells whoever asks for its health to go elsewhere; it goes on answering. */
  leave(): void {
    this.stopHealth();
    this.grpc?.health.leave();
  }

  /** Lets calls end for a moment. */
  async close(): Promise<void> {
    await this.listener?.close(drainMs);
    await this.endpoint?.close();
    this.loopDelay.close();
  }

  private metrics(): Metrics {
    const { parts, picture, services } = this.options;
    const { foundations, disk } = parts;
    const watching = (): number => this.grpc?.health.watching ?? 0;
    const source = metricsSource(foundations, {
      loopDelay: this.loopDelay,
      queues: () => [{ queue: 'health_watchers', length: watching(), limit: watchersMax }],
      gauges: [
        ['client_connections', 'Open', () => this.listener?.connections ?? 0],
        ['client_requests_waiting', 'Calls that wait for an answer', () => services.deadlines.size],
        [
          'migrations_driven',
          'Migrations whose source is led by this node',
          () => picture.migrationsDriven,
        ],
        [
          'slots_in_migration',
          'On their way to or from replicas on this node',
          () => picture.slotsInMigration,
        ],
        ['disk_free_bytes', 'Of the data directory', () => disk.freeBytes],
        ['disk_reserve_bytes', 'Below it writes are refused', () => disk.reserveBytes],
      ],
    });
    return new Metrics(source, foundations.meters);
  }
}
