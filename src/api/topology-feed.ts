/**
 * How a node hears of topologies that it does not apply itself. One whose replica of the metadata
 * group does not hear from the group, or that has none, watches a node that has one. And every node
 * asks around when somebody names a version that is newer than its own, and now and then unasked: the
 * metadata group that it hears from may have been recovered without it (rule D07).
 *
 * Whatever comes in by these ways goes through `onTopology`, which takes nothing older.
 */
import { watchTopology } from '../../proto/topology-watch.js';
import type { WatchEvent } from '../../proto/messages.js';
import type { ClusterView } from '../cluster/cluster-view.js';
import { nodeOf, parseTopology, type Topology } from '../meta/topology.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { NodeLink } from './node-link.js';

/** Between two looks at whether a node is to be watched. */
const lookEveryMs = 500;
/** Then another node is watched: this one may be cut off from the others, and not know it. */
const turnMs = 15_000;
/** While nothing is known: who is watched may know nothing either, or take 5 s to say so. */
const firstTurnMs = 6000;
/** Between two rounds of questions; twice as long each time that nobody knew more. */
const askMsMin = 250;
const askMsMax = 30_000;
/** Between two rounds unasked; the first one comes soon after the start. */
const unaskedEveryMs = 10_000;
/** Nodes asked in one round. */
const askedMax = 3;

export interface TopologyFeedOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly node: number;
  readonly clusterId: string;
  /** Of this node's data directory, as in the topology. */
  readonly directoryId: string;
  /** Client addresses of the other first nodes: the ones to ask while no topology is known. */
  readonly firstAddresses: readonly string[];
  readonly view: ClusterView;
  readonly link: Pick<NodeLink, 'topology'>;
  /** By its own replica of the metadata group: nobody has to be watched. */
  readonly isInformed: () => boolean;
  readonly onTopology: (topology: Topology) => void;
  /** How another node is watched, if not over a connection of HTTP/2. */
  readonly watch?: typeof watchTopology;
}

export class TopologyFeed {
  private readonly options: TopologyFeedOptions;
  private turn = 0;
  /** Undefined while no node is watched. */
  private stopWatch: Cancel | undefined;
  private watchedSinceMs = 0;
  private readonly stopLooking: Cancel;
  private asking = false;
  private askMs = askMsMin;
  private nextAskMs = 0;
  private nextUnaskedMs = 0;
  private closed = false;
  /** Said already, by whom it came from; of a watch until it works again. */
  private readonly troubles = new Map<string, string>();

  constructor(options: TopologyFeedOptions) {
    this.options = options;
    this.stopLooking = options.clock.every(lookEveryMs, () => {
      this.look();
    });
  }

  /**
   * Somebody named this version of the map. Nothing is believed but what a node of the cluster hands
   * out: a version that nobody has costs a few questions, ever more seldom.
   */
  onMapVersion(version: number): void {
    const { view, clock } = this.options;
    if (version <= view.version || this.asking || this.closed) return;
    if (clock.monotonicMs() < this.nextAskMs) return;
    void this.askForNewer();
  }

  close(): void {
    this.closed = true;
    this.stopLooking();
    this.endWatch();
  }

  private look(): void {
    const watched = this.stopWatch !== undefined;
    this.askUnasked();
    if (this.options.isInformed()) this.endWatch();
    else if (!watched || this.options.clock.monotonicMs() - this.watchedSinceMs > this.turnMs)
      this.watchNext();
  }

  private get turnMs(): number {
    return this.options.view.version === 0 ? firstTurnMs : turnMs;
  }

  private endWatch(): void {
    this.stopWatch?.();
    this.stopWatch = undefined;
  }

  private watchNext(): void {
    const { view, clock, log, watch = watchTopology } = this.options;
    const endpoint = this.nextSource();
    if (endpoint === undefined) return;
    this.endWatch();
    this.watchedSinceMs = clock.monotonicMs();
    const onEnd = (reason: string): void => {
      this.stopWatch = undefined;
      if (this.troubles.get(endpoint) === reason) return;
      this.troubles.set(endpoint, reason);
      log('warn', { endpoint, reason }, 'the watch of the topology ended: another node is next');
    };
    this.stopWatch = watch({
      endpoint,
      request: { fromVersion: view.version, withDocument: true },
      after: (ms, fire) => clock.after(ms, fire),
      holdsProcess: true,
      onEvent: (event) => {
        try {
          this.take(event);
          this.troubles.delete(endpoint);
        } catch (error) {
          this.endWatch();
          onEnd(`it told what cannot be read: ${String(error)}`);
        }
      },
      onEnd,
    });
  }

  /** Nodes with the metadata group only: those without it might watch one another in a ring. */
  private nextSource(): string | undefined {
    const { view, firstAddresses } = this.options;
    const sources =
      view.version === 0
        ? firstAddresses
        : this.addressesOf(view.topology.metadata.map(({ node }) => node));
    return sources[this.turn++ % Math.max(1, sources.length)];
  }

  /** Throws for a document that is none: of another version of this program, or damaged. */
  private take({ topology }: WatchEvent): void {
    const { view, clusterId, onTopology } = this.options;
    if (!topology || topology.version <= view.version) return;
    // An address that was a node's may be one of another cluster by now.
    if (topology.clusterId !== clusterId) return;
    const document = parseTopology(topology.document);
    if (view.version > 0 || this.isOwnDirectory(document)) onTopology(document);
  }

  /**
   * A node whose disk was wiped has forgotten its votes and its data. It must not learn by this way which
   * replicas were its own, and begin them anew (rule D01, R24).
   */
  private isOwnDirectory(topology: Topology): boolean {
    const { node, directoryId, log } = this.options;
    const known = nodeOf(topology, node)?.directoryId;
    if (known === directoryId) return true;
    const trouble = 'the cluster knows another data directory of this node, or none';
    if (!this.troubles.has(trouble))
      log('error', { known, directoryId }, `${trouble}: was its disk wiped? Add it as a new node`);
    this.troubles.set(trouble, '');
    return false;
  }

  private askUnasked(): void {
    const nowMs = this.options.clock.monotonicMs();
    if (nowMs < this.nextUnaskedMs) return;
    this.nextUnaskedMs = nowMs + unaskedEveryMs;
    void this.ask();
  }

  /** Ever more seldom while nobody knows more. */
  private async askForNewer(): Promise<void> {
    const { clock } = this.options;
    this.asking = true;
    const isNewer = await this.ask();
    this.asking = false;
    this.askMs = isNewer ? askMsMin : Math.min(askMsMax, this.askMs * 2);
    this.nextAskMs = clock.monotonicMs() + this.askMs;
  }

  /** True: one of a few others knew more. */
  private async ask(): Promise<boolean> {
    const { view, link } = this.options;
    const before = view.version;
    for (const address of this.others()) {
      try {
        this.take({ topology: await link.topology(address, before) });
      } catch {
        // That node does not answer, or says no more than we can read: the next one is asked.
      }
      if (view.version > before || this.closed) break;
    }
    return view.version > before;
  }

  /** A few of them, others each time; the metadata group's first. */
  private others(): readonly string[] {
    const { view, firstAddresses } = this.options;
    const { metadata, nodes } = view.topology;
    const present = nodes.filter(({ state }) => state !== 'removed').map(({ id }) => id);
    const addresses =
      view.version === 0
        ? firstAddresses
        : this.addressesOf([...metadata.map((each) => each.node), ...present]);
    const first = addresses.length <= askedMax ? 0 : this.turn++ % addresses.length;
    return [...addresses.slice(first), ...addresses.slice(0, first)].slice(0, askedMax);
  }

  private addressesOf(nodes: readonly number[]): readonly string[] {
    const { view, node: own } = this.options;
    return [...new Set(nodes)]
      .filter((node) => node !== own)
      .map((node) => view.clientAddressOf(node))
      .filter((address) => address !== undefined);
  }
}
