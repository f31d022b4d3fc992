import { expect } from 'chai';
import type { TopologyReply } from '../../proto/messages.js';
import { topologyReply } from '../../src/api/admin-service.js';
import { TopologyFeed } from '../../src/api/topology-feed.js';
import { ClusterView } from '../../src/cluster/cluster-view.js';
import type { Topology } from '../../src/meta/topology.js';
import { clusterOf, directoryOf } from '../meta/clusters.js';
import { ManualClock } from '../support/manual-clock.js';

const known = clusterOf(3, { shards: 1 });
const newer: Topology = { ...known, version: known.version + 1_000_000, generation: 7 };

/** Node 2, whose own replica of the metadata group tells it what is new; node 1 knows `there`. */
function feedAt(
  there: Topology,
  own?: Topology,
  ownDirectory = directoryOf(2),
): { view: ClusterView; asked: string[]; logged: string[]; close: () => void } & {
  hint: (version: number) => void;
  pass: (ms: number) => Promise<void>;
} {
  const clock = new ManualClock();
  const view = new ClusterView();
  if (own !== undefined) view.update(own);
  const asked: string[] = [];
  const logged: string[] = [];
  const feed = new TopologyFeed({
    clock,
    log: (_level, _fields, message) => logged.push(message),
    node: 2,
    clusterId: known.clusterId,
    directoryId: ownDirectory,
    firstAddresses: ['node-3:7400', 'node-1:7400'],
    view,
    link: {
      topology: (address): Promise<TopologyReply> => {
        asked.push(address);
        return address === 'node-1:7400'
          ? Promise.resolve(topologyReply(there))
          : Promise.reject(new Error('does not answer'));
      },
    },
    isInformed: () => true,
    onTopology: (topology) => {
      view.update(topology);
    },
  });
  return {
    view,
    asked,
    logged,
    close: () => {
      feed.close();
    },
    hint: (version) => {
      feed.onMapVersion(version);
    },
    pass: async (ms) => {
      for (let passed = 0; passed < ms; passed += 500) {
        clock.jump(500);
        await clock.settle();
      }
    },
  };
}

describe('what a node hears of the topology', () => {
  it('D07: comes also from others while its own metadata group talks: that may be an old majority', async () => {
    const { view, pass, close } = feedAt(newer, known);
    await pass(1000);
    expect(view.topology.generation).to.equal(7);
    close();
  });

  it('is asked for unasked every ten seconds, which holds back no question that a hint gives rise to', async () => {
    const { asked, pass, hint, close } = feedAt(known, known);
    await pass(60_000);
    // Each time the two others.
    expect(asked).to.have.length.within(10, 14);
    const before = asked.length;
    hint(known.version + 1);
    await pass(0);
    expect(asked.length).to.be.greaterThan(before);
    close();
  });

  it('is asked of the other first nodes while none is known: its own copy is lost, and it leads no group', async () => {
    const { view, pass, close } = feedAt(newer);
    await pass(1000);
    expect(view.version).to.equal(newer.version);
    close();
  });

  it('R24, D01: is not taken by a node whose disk was wiped: it would begin its old replicas anew', async () => {
    const { view, asked, logged, pass, close } = feedAt(newer, undefined, directoryOf(9));
    await pass(30_000);
    expect(asked).to.include('node-1:7400');
    expect(view.version).to.equal(0);
    expect(logged.filter((line) => line.includes('wiped'))).to.have.length(1);
    close();
  });

  it('is not taken from another cluster, even while none is known', async () => {
    const { view, asked, pass, close } = feedAt({ ...newer, clusterId: 'another' });
    await pass(1000);
    expect(asked).to.include('node-1:7400');
    expect(view.version).to.equal(0);
    close();
  });

  it('says once that a node cannot be watched, until it can again', () => {
    const clock = new ManualClock();
    const view = new ClusterView();
    view.update(known);
    const logged: string[] = [];
    let isUp = false;
    const feed = new TopologyFeed({
      clock,
      log: (_level, { endpoint }) => logged.push(String(endpoint)),
      node: 2,
      clusterId: known.clusterId,
      directoryId: directoryOf(2),
      firstAddresses: [],
      view,
      link: { topology: () => Promise.reject(new Error('does not answer')) },
      isInformed: () => false,
      onTopology: () => undefined,
      watch: ({ onEvent, onEnd }) => {
        if (isUp) onEvent({});
        onEnd('connection refused');
        return () => undefined;
      },
    });
    const pass = (): void => {
      for (let n = 0; n < 100; n++) clock.jump(500);
    };
    pass();
    const [first, second, ...more] = logged;
    expect([first, second].sort()).to.deep.equal(['node-1:7400', 'node-3:7400']);
    expect(more).to.deep.equal([]);
    isUp = true;
    pass();
    expect(logged.length).to.be.greaterThan(4);
    feed.close();
  });
});
