/**
 * Puts a node together, floor by floor, and takes it apart again in the opposite order. Each file
 * wires a part: `foundations.ts` what is on disk and between nodes, `node-parts.ts` the replicas and
 * what is known of the cluster, `client-port.ts` what clients speak to; this one what the node does of
 * its own accord.
 */
import { adminMethods } from './api/admin-service.js';
import { ClusterEntry } from './api/cluster-entry.js';
import { GroupDoor } from './api/group-door.js';
import { stepsThrough } from './api/migration-steps.js';
import type { AdminMethods } from './api/grpc-server.js';
import { defaultLimits } from './api/limits.js';
import { MetadataDoor } from './api/metadata-door.js';
import { TopologyFeed } from './api/topology-feed.js';
import { TopologyService } from './api/topology-service.js';
import { ClientPort, type ClientPortOptions } from './client-port.js';
import { ClientServices } from './client-services.js';
import { Controller } from './cluster/controller.js';
import { MigrationDrivers } from './cluster/migration-drivers.js';
import { PinDrivers } from './cluster/pin-drivers.js';
import { RecoveredGroups } from './cluster/recovered-groups.js';
import { formatAddress } from './config/address.js';
import type { FoundationOptions } from './foundations.js';
import { openParts, type NodeParts } from './node-parts.js';
import { NodePicture } from './node-picture.js';

const handOverMs = 2000;

/** What a node is called through. */
export type Port = Pick<ClientPort, 'open' | 'leave' | 'close'>;

type NewPort = (options: ClientPortOptions) => Port;

export interface NodeOptions extends FoundationOptions {
  /** Sockets if left out. */
  readonly newPort?: NewPort;
}

const socketPort: NewPort = (options) => new ClientPort(options);

export class QuorateNode {
  private readonly parts: NodeParts;
  private readonly picture: NodePicture;
  private readonly door: MetadataDoor;
  private readonly feed: TopologyFeed;
  private readonly topologies: TopologyService;
  private readonly services: ClientServices;
  private readonly port: Port;
  private readonly controller: Controller;
  private readonly recovered: RecoveredGroups;
  private readonly groupDoor: GroupDoor;
  private readonly migrations: MigrationDrivers;
  private readonly pins: PinDrivers;

  private constructor(parts: NodeParts, newPort: NewPort) {
    const { metadata, view, clock, foundations, clientAddressOf: addressOf } = parts;
    this.parts = parts;
    this.picture = new NodePicture(parts, (shard) => this.migrations.figuresOf(shard));
    this.door = new MetadataDoor({ metadata, addressOf, view, link: foundations.link, clock });
    this.groupDoor = new GroupDoor({
      groups: () => this.picture.groups(),
      view,
      link: foundations.link,
      clock,
      addressOf,
    });
    this.migrations = this.driveMigrations();
    this.pins = this.drivePins();
    this.feed = this.feedTopologies();
    this.topologies = this.tellTopologies();
    const { picture, feed, topologies } = this;
    this.services = new ClientServices({ parts, feed, topologies });
    const { services } = this;
    this.port = newPort({ parts, picture, services, adminMethods: this.adminMethods() });
    this.controller = this.decide();
    this.recovered = this.recordRecoveries();
  }

  /** Recovers, joins its groups and begins to serve. Rejects with a message that names the remedy. */
  static async open(options: NodeOptions): Promise<QuorateNode> {
    const { config, log } = options;
    const node = new QuorateNode(await openParts(options), options.newPort ?? socketPort);
    node.controller.start();
    await node.parts.foundations.host.start();
    await node.port.open();
    const [clients, peers] = [config.clientAddress, config.peerAddress].map(formatAddress);
    log('info', { clients, peers }, 'serving');
    return node;
  }

  /** Hands leadership over, lets calls end, and closes everything in order. */
  async close(): Promise<void> {
    const { foundations, shards, disk } = this.parts;
    const { host, raftLog, engine, forwarder } = foundations;
    this.feed.close();
    this.topologies.close();
    this.recovered.close();
    this.migrations.close();
    this.pins.close();
    this.controller.close();
    this.port.leave();
    // While it hands over, this node goes on answering: requests are forwarded to the next leader.
    await host.handOver(handOverMs);
    await this.port.close();
    shards.close();
    await host.close();
    this.parts.cache.close();
    this.services.endWaiting();
    forwarder.close();
    disk.close();
    await raftLog.close();
    await engine.close();
  }

  private feedTopologies(): TopologyFeed {
    const { config, clock, log, view, metadata, foundations, onTopology } = this.parts;
    const { node, link, machine } = foundations;
    return new TopologyFeed({
      clock,
      log,
      node,
      clusterId: config.clusterId,
      directoryId: Buffer.from(foundations.identity.directoryId).toString('hex'),
      firstAddresses: config.initialCluster
        .filter((member) => member.node !== node)
        .map(({ client }) => formatAddress(client)),
      view,
      link,
      isInformed: () => metadata.isInformed,
      onTopology,
      watch: machine.watchTopology,
    });
  }

  private tellTopologies(): TopologyService {
    const { clock, view } = this.parts;
    const topologies = new TopologyService({
      clock,
      topology: () => view.topology,
      leaders: () => this.picture.knownLeaders(),
      onMapVersion: (version) => {
        this.feed.onMapVersion(version);
      },
      watchersMax: defaultLimits.watchersMax,
    });
    view.onUpdate = () => {
      topologies.onTopology();
      this.migrations.look();
      this.pins.look();
    };
    return topologies;
  }

  /** Acts for the cluster whenever this node leads the metadata group. */
  private decide(): Controller {
    const { clock, log, metadata, view, foundations } = this.parts;
    const { transport, node } = foundations;
    return new Controller({
      node,
      metadata,
      view,
      clock,
      log,
      isConnected: (other) =>
        transport.peers().some((peer) => peer.node === other && peer.connected),
      report: (shard) => this.picture.shardReport(shard),
    });
  }

  private recordRecoveries(): RecoveredGroups {
    const { clock, log, view, foundations } = this.parts;
    const run = (text: string): Promise<unknown> => this.door.changeText(text, false);
    return new RecoveredGroups({ host: foundations.host, view, clock, log, run });
  }

  /** Of the shards that this node leads. */
  private driveMigrations(): MigrationDrivers {
    const { clock, log, view, shards, onFatal } = this.parts;
    return new MigrationDrivers({
      clock,
      log,
      onFatal,
      topology: () => view.topology,
      shards: () => shards.all().map(({ shard }) => shard),
      stepAtTarget: stepsThrough(this.groupDoor),
      tell: async (command) => {
        await this.door.changeText(JSON.stringify(command), false);
      },
    });
  }

  /** Into their hash slots and out of them, in the shards that this node leads. */
  private drivePins(): PinDrivers {
    const { clock, log, view, shards, onFatal } = this.parts;
    return new PinDrivers({
      clock,
      log,
      onFatal,
      topology: () => view.topology,
      shards: () => shards.all().map(({ shard }) => shard),
      tell: async (command) => {
        await this.door.changeText(JSON.stringify(command), false);
      },
    });
  }

  private adminMethods(): AdminMethods {
    const { config, clock, view, foundations } = this.parts;
    const { picture, door } = this;
    const { identity } = foundations;
    const entry = new ClusterEntry({ config, identity, door, view, clock });
    return adminMethods({
      groups: () => picture.groups(),
      door: this.groupDoor,
      node: () => picture.node(),
      topology: () => view.topology,
      initCluster: (request, forwarded) => entry.init(request, forwarded),
      join: (request, forwarded) => entry.join(request, forwarded),
      changeCluster: ({ command, ifVersion }, forwarded) =>
        door.changeText(command, forwarded, ifVersion),
    });
  }
}
