import { expect } from 'chai';
import { codecOf } from '../../proto/definitions.js';
import type { WatchEvent } from '../../proto/messages.js';
import type { ReplySink } from '../../src/api/grpc-server.js';
import { TopologyService, type KnownLeader } from '../../src/api/topology-service.js';
import { KvError } from '../../src/errors.js';
import { noCluster, type Topology } from '../../src/meta/topology.js';
import type { Clock } from '../../src/observe/clock.js';

const codec = codecOf<WatchEvent>('quorate.v1.WatchEvent');

/** What a watcher was told: "v3 +map 1:2@5" (version, map sent, shard:leader@term). */
function shown(bytes: Uint8Array): string {
  const { version = 0, topology, leaders = [] } = codec.decode(bytes);
  const told = leaders.map(({ shardId, nodeId, term }) => `${shardId}:${nodeId}@${term}`);
  return [`v${version}`, ...(topology ? ['+map'] : []), ...told].join(' ');
}

class Sink implements ReplySink<Uint8Array> {
  ended = false;
  readonly told: string[] = [];
  /** Takes nothing until it is let. */
  private waiting: (() => void) | undefined;
  private slow = false;

  send(bytes: Uint8Array): Promise<void> {
    return this.flush(bytes);
  }

  flush(bytes: Uint8Array): Promise<void> {
    this.told.push(shown(bytes));
    if (!this.slow) return Promise.resolve();
    return new Promise((resolve) => {
      this.waiting = resolve;
    });
  }

  stall(): void {
    this.slow = true;
  }

  read(): void {
    this.slow = false;
    this.waiting?.();
  }
}

function world(): {
  service: TopologyService;
  change: (version: number) => Promise<void>;
  lead: (...leaders: KnownLeader[]) => void;
  pass: (ms: number) => Promise<void>;
  named: number[];
} {
  let topology: Topology = noCluster;
  let leaders: readonly KnownLeader[] = [];
  let tick: () => void = () => undefined;
  const named: number[] = [];
  const clock: Clock = {
    monotonicMs: () => 0,
    wallMs: () => 0,
    every: (_ms, run) => {
      tick = run;
      return () => undefined;
    },
    after: () => () => undefined,
    endOfTurn: (run) => {
      run();
    },
  };
  const service = new TopologyService({
    clock,
    topology: () => topology,
    leaders: () => leaders,
    onMapVersion: (version) => named.push(version),
    watchersMax: 2,
  });
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  return {
    service,
    named,
    change: async (version) => {
      topology = { ...noCluster, version };
      service.onTopology();
      await turn();
    },
    lead: (...now) => {
      leaders = now;
    },
    pass: async (ms) => {
      for (let n = 0; n < ms / 100; n++) tick();
      await turn();
    },
  };
}

describe('Topology.Watch', () => {
  it('tells a newer topology, changes, changed leaders, and heartbeats, in the cheapest form', async () => {
    const { service, change, lead, pass } = world();
    const sink = new Sink();
    void service.watch({}, sink);
    await change(3);
    lead({ shard: 1, node: 2, term: 5 }, { shard: 2, node: 1, term: 4 });
    await pass(100);
    lead({ shard: 1, node: 3, term: 6 }, { shard: 2, node: 1, term: 4 });
    await pass(100);
    await pass(2000);
    await change(4);
    expect(sink.told).to.deep.equal([
      'v0',
      'v3 +map',
      'v3 1:2@5 2:1@4',
      'v3 1:3@6',
      'v3',
      'v4 +map',
    ]);
    service.close();
  });

  it('a slow watcher hurts only itself: it is told the newest when it reads again', async () => {
    const { service, change } = world();
    const [slow, quick] = [new Sink(), new Sink()];
    slow.stall();
    for (const sink of [slow, quick]) void service.watch({}, sink);
    for (const version of [1, 2, 3, 4]) await change(version);
    expect(quick.told).to.deep.equal(['v0', 'v1 +map', 'v2 +map', 'v3 +map', 'v4 +map']);
    expect(slow.told).to.deep.equal(['v0']);
    slow.read();
    await change(4);
    expect(slow.told).to.deep.equal(['v0', 'v4 +map']);
    service.close();
  });

  it('takes a limited number of watchers, and more when one has left', async () => {
    const { service, pass } = world();
    const sinks = [new Sink(), new Sink()];
    for (const sink of sinks) void service.watch({}, sink);
    const refused: unknown = await service.watch({}, new Sink()).catch((e: unknown) => e);
    expect(refused).to.be.instanceOf(KvError);
    expect((refused as KvError).fields).to.include({ code: 'KV_OVERLOADED', limit: 2 });
    for (const sink of sinks) sink.ended = true;
    await pass(100);
    const late = new Sink();
    void service.watch({}, late);
    expect(late.told).to.deep.equal(['v0']);
    service.close();
  });

  it('a watcher from the future is told the version that there is, and reported', async () => {
    const { service, change, named } = world();
    await change(3);
    const sink = new Sink();
    void service.watch({ fromVersion: 2 ** 60 }, sink);
    await change(4);
    service.close();
    expect(new Set(sink.told)).to.deep.equal(new Set(['v3']));
    expect(named).to.deep.equal([2 ** 60]);
  });

  it('lets its watchers go when the node stops', async () => {
    const { service } = world();
    const watching = service.watch({}, new Sink());
    await Promise.resolve();
    service.close();
    await watching;
  });
});
