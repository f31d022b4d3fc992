/**
 * The topology for a node whose replica of the metadata group does not hear of it, or that has none:
 * asked for again and again at those that may know better, one after the other.
 */
import type { ClusterView } from '../cluster/cluster-view.js';
import type { Topology } from '../meta/topology.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { NodeLink } from './node-link.js';

const everyMs = 500;

export class TopologyFeed {
  private readonly stop: Cancel;
  private asking = false;
  private turn = 0;
  private readonly options: {
    readonly view: ClusterView;
    readonly link: NodeLink;
    readonly onTopology: (topology: Topology) => void;
    /** Nobody has to be asked. */
    readonly isInformed: () => boolean;
  };

  constructor(clock: Clock, options: TopologyFeed['options']) {
    this.options = options;
    this.stop = clock.every(everyMs, () => {
      if (!this.asking && !options.isInformed()) void this.ask();
    });
  }

  close(): void {
    this.stop();
  }

  private async ask(): Promise<void> {
    const { view, link, onTopology } = this.options;
    const nodes = view.topology.metadata;
    const node = nodes[this.turn++ % Math.max(1, nodes.length)]?.node;
    const address = node === undefined ? undefined : view.clientAddressOf(node);
    if (address === undefined) return;
    this.asking = true;
    try {
      const { version, document } = await link.topology(address, view.version);
      // Written by a node of this cluster: it passed the handshake of our own connection to it.
      if (version > view.version) onTopology(JSON.parse(document) as Topology);
    } catch {
      // That node does not answer: the next one is asked in half a second.
    } finally {
      this.asking = false;
    }
  }
}
