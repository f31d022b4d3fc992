import { expect } from 'chai';
import { nodeId, replicaId } from '../../raft/index.js';
import type { TopologyReply } from '../../proto/messages.js';
import { topologyReply } from '../../src/api/admin-service.js';
import { TopologyFeed } from '../../src/api/topology-feed.js';
import { ClusterView } from '../../src/cluster/cluster-view.js';
import type { Topology } from '../../src/meta/topology.js';
import { FakeNode, type Watcher } from '../client/fake-node.js';
import { clusterOf } from '../meta/clusters.js';
import { ManualClock } from '../support/manual-clock.js';

/** What a node answers that is asked: a topology, or that it cannot be reached. */
type Answer = (knownVersion: number) => TopologyReply;

const unreachable: Answer = () => {
  throw new Error('connection refused');
};

/** A feed on node 9, which has no replica of the metadata group; that is on nodes 1, 2 and 3. */
class Stage {
  readonly clock = new ManualClock();
  readonly view = new ClusterView();
  readonly log: string[] = [];
  readonly asked: string[] = [];
  readonly answers = new Map<string, Answer>();
  isInformed = false;
  readonly feed: TopologyFeed;

  constructor(addresses: readonly string[] = ['one', 'two', 'three']) {
    this.view.update(this.topology(5, addresses));
    this.feed = new TopologyFeed({
      clock: this.clock,
      log: (_level, _fields, message) => this.log.push(message),
      node: 9,
      clusterId: 'prod',
      directoryId: '',
      firstAddresses: [],
      view: this.view,
      link: {
        topology: (address, knownVersion = 0) => {
          this.asked.push(address);
          return Promise.resolve().then(() =>
            (this.answers.get(address) ?? unreachable)(knownVersion),
          );
        },
      },
      isInformed: () => this.isInformed,
      onTopology: (topology) => {
        this.view.update(topology);
      },
    });
  }

  topology(version: number, addresses: readonly string[] = ['one', 'two', 'three']): Topology {
    const made = clusterOf(addresses.length, { shards: 1, replication: 1 });
    return {
      ...made,
      clusterId: 'prod',
      version,
      nodes: made.nodes.map((node, at) => ({ ...node, clientAddress: addresses[at] ?? '' })),
      metadata: made.nodes.map(({ id }) => ({ replica: replicaId(id), node: nodeId(id) })),
    };
  }

  /** Names a version and lets the questions that follow be answered. */
  async name(version: number): Promise<readonly string[]> {
    this.asked.length = 0;
    this.feed.onMapVersion(version);
    await this.clock.settle();
    return [...this.asked];
  }
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  const deadline = performance.now() + 15_000;
  while (!isSo()) {
    if (performance.now() > deadline) throw new Error(`not within 15 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe('a node that is told of topologies: asking', () => {
  let stage: Stage;
  beforeEach(() => {
    stage = new Stage();
  });
  afterEach(() => {
    stage.feed.close();
  });

  it('asks when a newer version is named, and not for what it knows', async () => {
    stage.answers.set('one', () => topologyReply(stage.topology(7)));
    expect(await stage.name(5)).to.deep.equal([]);
    expect(await stage.name(7)).to.deep.equal(['one']);
    expect(stage.view.version).to.equal(7);
  });

  it('asks the next one when the first cannot be reached, says nothing new, or says nonsense', async () => {
    stage.answers.set('one', unreachable);
    stage.answers.set('two', () => ({ ...topologyReply(stage.topology(7)), document: '{' }));
    stage.answers.set('three', () => topologyReply(stage.topology(6)));
    expect(await stage.name(7)).to.deep.equal(['one', 'two', 'three']);
    expect(stage.view.version).to.equal(6);
  });

  it('believes nobody who only names a version: each round that finds nothing doubles the pause', async () => {
    const known = topologyReply(stage.topology(5));
    for (const address of ['one', 'two', 'three']) stage.answers.set(address, () => known);
    const rounds: number[] = [];
    for (let ms = 0; ms < 120_000; ms += 50) {
      if ((await stage.name(Number.MAX_SAFE_INTEGER)).length > 0) rounds.push(ms);
      stage.clock.stall(50);
    }
    expect(stage.view.version).to.equal(5);
    // 0.25 s at first, doubled each time, 30 s at most: not one question for each request.
    expect(rounds.length).to.be.within(8, 12);
    expect((rounds.at(-1) ?? 0) - (rounds.at(-2) ?? 0)).to.be.within(25_000, 31_000);
  });

  it('asks at once again after a round that brought news', async () => {
    stage.answers.set('one', unreachable);
    for (let round = 0; round < 6; round++) {
      await stage.name(7);
      stage.clock.stall(30_000);
    }
    stage.answers.set('one', () => topologyReply(stage.topology(7)));
    await stage.name(7);
    stage.answers.set('one', () => topologyReply(stage.topology(8)));
    stage.clock.stall(250);
    await stage.name(8);
    expect(stage.view.version).to.equal(8);
  });

  it('takes nothing from a node of another cluster, however new it is', async () => {
    const foreign = { ...stage.topology(1_000_000), clusterId: 'another' };
    stage.answers.set('one', () => topologyReply(foreign));
    stage.answers.set('two', () => topologyReply(stage.topology(7)));
    expect(await stage.name(1_000_000)).to.deep.equal(['one', 'two']);
    expect([stage.view.version, stage.view.topology.clusterId]).to.deep.equal([7, 'prod']);
  });
});

describe('a node that is told of topologies: watching', function () {
  this.timeout(60_000);
  const nodes: FakeNode[] = [];
  let stage: Stage | undefined;
  afterEach(() => {
    stage?.feed.close();
    for (const node of nodes.splice(0)) node.kill();
  });

  async function start(tell: (stage: Stage, watcher: Watcher, node: FakeNode) => void) {
    const [one, two] = [await new FakeNode().start(), await new FakeNode().start()];
    nodes.push(one, two);
    const made = new Stage([one.endpoint, two.endpoint]);
    stage = made;
    for (const node of nodes)
      node.onWatch = (watcher) => {
        tell(made, watcher, node);
      };
    return { stage: made, one, two };
  }

  const send = (node: FakeNode, watcher: Watcher, topology: Topology): void => {
    const { version } = topology;
    // Seldom heard: time passes here in jumps, and no watch is to end by silence.
    node.tell(watcher, { topology: topologyReply(topology), version, heartbeatMs: 3_600_000 });
  };

  it('watches a node of the metadata group, and the next one when that cannot be reached', async () => {
    const {
      stage: made,
      one,
      two,
    } = await start((each, watcher, node) => {
      send(node, watcher, each.topology(7, [one.endpoint, two.endpoint]));
    });
    one.kill();
    made.clock.jump(500);
    await until('the first one is given up', () => made.log.length > 0);
    made.clock.jump(500);
    await until('the second one told', () => made.view.version === 7);
    expect([one.watches.length, two.watches.length]).to.deep.equal([0, 1]);
    expect(two.watches[0]).to.include({ withDocument: true });
  });

  it('turns to another one after a while, also from one that answers: it may be cut off', async () => {
    const {
      stage: made,
      one,
      two,
    } = await start((each, watcher, node) => {
      const version = node === one ? 5 : 6;
      send(node, watcher, each.topology(version, [one.endpoint, two.endpoint]));
    });
    made.clock.jump(500);
    await until('the first one is watched', () => one.watchers.size === 1);
    await made.clock.settle();
    expect(made.log).to.deep.equal([]);
    for (let ms = 0; ms <= 15_500; ms += 500) made.clock.jump(500);
    await until('the second one told', () => made.view.version === 6);
    await until('the first one is not watched any more', () => one.watchers.size === 0);
  });

  it('survives what cannot be read, and a topology of another cluster', async () => {
    const {
      stage: made,
      one,
      two,
    } = await start((each, watcher, node) => {
      const addresses = [one.endpoint, two.endpoint];
      if (node === one) {
        const reply = { ...topologyReply(each.topology(9, addresses)), document: '{"version": 9' };
        node.tell(watcher, { topology: reply, version: 9 });
      } else {
        send(node, watcher, { ...each.topology(9_000, addresses), clusterId: 'another' });
        send(node, watcher, each.topology(7, addresses));
      }
    });
    made.clock.jump(500);
    await until('the first one is given up', () => made.log.length > 0);
    expect(made.view.version).to.equal(5);
    made.clock.jump(500);
    await until('the second one told', () => made.view.version === 7);
    expect(made.view.topology.clusterId).to.equal('prod');
  });

  it('ends the watch when its own replica hears of the group again', async () => {
    const {
      stage: made,
      one,
      two,
    } = await start((each, watcher, node) => {
      send(node, watcher, each.topology(6, [one.endpoint, two.endpoint]));
    });
    made.clock.jump(500);
    await until('it was told', () => made.view.version === 6);
    made.isInformed = true;
    made.clock.jump(500);
    await until('nobody is watched', () => one.watchers.size + two.watchers.size === 0);
    for (let look = 0; look < 60; look++) made.clock.jump(500);
    expect(one.watches.length + two.watches.length).to.equal(1);
  });
});
