import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { findUp } from '../../src/cli/find-up.js';
import { dump, load } from '../../src/cli/load-dump.js';
import { KvError, QuorateClient } from '../../src/client/index.js';
import {
  bytes,
  expectEqualReplicas,
  followerOf,
  leaderOf,
  shard,
  text,
  withCluster,
} from './fixture.js';
import { createWriteStream, readFileSync } from 'node:fs';
import { once } from 'node:events';

/** Counts up in a loop until told to stop; what it was told is what must be there. */
class Counter {
  acknowledged = 0;
  unknown = 0;
  stopped = false;
  private readonly client: QuorateClient;
  private readonly key: Uint8Array;

  constructor(client: QuorateClient, key: string) {
    this.client = client;
    this.key = bytes(key);
  }

  async run(): Promise<void> {
    while (!this.stopped) {
      try {
        await this.client.increment({ key: this.key, delta: 1 });
        this.acknowledged += 1;
      } catch (error) {
        if (!(error instanceof KvError)) throw error;
        if (error.outcome === 'unknown') this.unknown += 1;
      }
    }
  }
}

describe('a cluster of real processes', function () {
  this.timeout(120_000);

  it('serves every node, whoever leads: writes are forwarded, reads are linearizable on followers', async () => {
    await withCluster({}, async ({ cluster }) => {
      for (const { clientAddress, node } of cluster.nodes) {
        const one = new QuorateClient({ endpoints: [clientAddress] });
        await one.put({ key: bytes(`from-${node}`), value: bytes('x') });
        for (const other of cluster.nodes) {
          const reader = new QuorateClient({ endpoints: [other.clientAddress] });
          const reply = await reader.get({ key: bytes(`from-${node}`) });
          expect(reply.found, `written at ${node}, read at ${other.node}`).to.equal(true);
          reader.close();
        }
        one.close();
      }
    });
  });

  it('R50: loses no acknowledged write and counts no retry twice when leaders are killed under load', async () => {
    await withCluster({}, async (fixture) => {
      const { cluster, client } = fixture;
      const counters = Array.from({ length: 8 }, (_, n) => {
        const own = new QuorateClient({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
        return { own, counter: new Counter(own, `counter-${n}`) };
      });
      const running = counters.map(({ counter }) => counter.run());
      for (let round = 0; round < 3; round++) {
        const before = counters[0]?.counter.acknowledged ?? 0;
        await cluster.waitFor('progress before the kill', 20_000, () =>
          Promise.resolve((counters[0]?.counter.acknowledged ?? 0) > before + 20),
        );
        const leader = await leaderOf(cluster);
        await cluster.kill(leader);
        const after = counters[0]?.counter.acknowledged ?? 0;
        await cluster.waitFor('progress after the kill', 20_000, () =>
          Promise.resolve((counters[0]?.counter.acknowledged ?? 0) > after + 20),
        );
        cluster.startNode(leader);
        await cluster.waitUntilReady(30_000);
      }
      for (const { counter } of counters) counter.stopped = true;
      await Promise.all(running);
      for (const [n, { own, counter }] of counters.entries()) {
        const reply = await client.get({ key: bytes(`counter-${n}`) });
        const value = Number(text(reply.kv?.value));
        expect(value, `counter ${n}`).to.be.within(
          counter.acknowledged,
          counter.acknowledged + counter.unknown,
        );
        own.close();
      }
      await expectEqualReplicas(fixture);
    });
  });

  it('R02: keeps every acknowledged write when all nodes are killed at once', async () => {
    await withCluster({}, async (fixture) => {
      const { cluster, client } = fixture;
      const written: string[] = [];
      for (let n = 0; n < 200; n++) {
        await client.put({ key: bytes(`key-${n}`), value: bytes(String(n)) });
        written.push(`key-${n}`);
      }
      await Promise.all(cluster.nodes.map(({ node }) => cluster.kill(node)));
      for (const { node } of cluster.nodes) cluster.startNode(node);
      await cluster.waitUntilReady(30_000);
      for (const [n, key] of written.entries()) {
        const reply = await client.get({ key: bytes(key) });
        expect(text(reply.kv?.value), key).to.equal(String(n));
      }
      await expectEqualReplicas(fixture);
    });
  });

  it('refuses writes without a majority, says that nothing was applied, and goes on when it is back', async () => {
    await withCluster({}, async ({ cluster, client }) => {
      await client.put({ key: bytes('a'), value: bytes('1') });
      const leader = await leaderOf(cluster);
      const others = cluster.nodes.filter(({ node }) => node !== leader).map(({ node }) => node);
      await Promise.all(others.map((node) => cluster.kill(node)));
      const alone = new QuorateClient({ endpoints: [cluster.node(leader).clientAddress] });
      const error = await alone
        .put({ key: bytes('b'), value: bytes('2') }, { timeoutMs: 4000 })
        .then(
          () => undefined,
          (reason: unknown) => reason,
        );
      expect(error).to.be.instanceOf(KvError);
      for (const node of others) cluster.startNode(node);
      await cluster.waitUntilReady(30_000);
      expect(text((await client.get({ key: bytes('a') })).kv?.value)).to.equal('1');
      await client.put({ key: bytes('c'), value: bytes('3') });
      alone.close();
    });
  });

  it('hands leadership over when the leader is asked to stop: no request fails', async () => {
    await withCluster({}, async ({ cluster }) => {
      const survivors = await followerOf(cluster);
      const client = new QuorateClient({
        endpoints: [cluster.node(survivors).clientAddress],
        timeoutMs: 20_000,
      });
      const counter = new Counter(client, 'n');
      const running = counter.run();
      const leader = await leaderOf(cluster);
      await cluster.terminate(leader);
      const after = counter.acknowledged;
      await cluster.waitFor('progress', 20_000, () =>
        Promise.resolve(counter.acknowledged > after + 20),
      );
      counter.stopped = true;
      await running;
      expect(counter.unknown).to.equal(0);
      client.close();
    });
  });

  it('loads the sample, dumps it, and both are the same records', async () => {
    await withCluster({}, async ({ client, directory }) => {
      const sample = findUp('test/data/packages-1000.jsonl');
      const { records } = await load(client, createReadStream(sample));
      expect(records).to.equal(1000);
      const file = join(directory, 'dump.jsonl');
      const output = createWriteStream(file);
      expect(await dump(client, output, { prefix: new Uint8Array() })).to.equal(1000);
      output.end();
      await once(output, 'close');
      const normalized = (path: string): string[] =>
        readFileSync(path, 'utf8')
          .trimEnd()
          .split('\n')
          .map((line) => JSON.stringify(JSON.parse(line)))
          .sort();
      expect(normalized(file)).to.deep.equal(normalized(sample));
      const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
      const middle: unknown = JSON.parse(lines[499] ?? '');
      const afterKey = bytes(String(Object(middle).key));
      let rest = 0;
      for await (const page of client.scan({ afterKey })) rest += page.kvs?.length ?? 0;
      expect(rest).to.equal(500);
    });
  });

  it('a follower that was away far longer than the log is kept catches up by a snapshot', async () => {
    const flags = { 'log-kept-mib': '1', 'segment-mib': '1' };
    await withCluster({ flags }, async (fixture) => {
      const { cluster, client } = fixture;
      const away = await followerOf(cluster);
      await cluster.kill(away);
      const value = Buffer.alloc(64 * 1024, 'v');
      for (let n = 0; n < 160; n++) await client.put({ key: bytes(`big-${n % 20}`), value });
      const leader = await cluster.status(await leaderOf(cluster));
      const group = leader?.groups.find((each) => each.groupId === shard);
      expect(group?.firstIndex, 'the log was compacted').to.be.above(50);
      cluster.startNode(away);
      await cluster.waitUntilReady(30_000);
      await expectEqualReplicas(fixture);
    });
  });
});
