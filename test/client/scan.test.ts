import { expect } from 'chai';
import fc from 'fast-check';
import {
  ReadLevel,
  type KeyValueMessage,
  type ScanReply,
  type ScanRequest,
} from '../../proto/messages.js';
import { QuorateClient } from '../../src/client/index.js';
import { slot, slotCount, slotOf } from '../../src/router/slot.js';
import { bytes, errorOf, until, withNodes, type FakeCluster } from './fake-cluster.js';
import { refusal, text, type FakeNode } from './fake-node.js';

const third = Math.ceil(slotCount / 3);
/** Of three shards, 1 to 3, in the order of their slots. */
const shardOf = (at: number): number => Math.floor(at / third) + 1;

/** Node n leads shard n of three and owns its slots; each shard has a replica on the next node too. */
class Shards {
  readonly nodes: readonly FakeNode[];
  /** Slots that have another owner than the map says, by node id. */
  readonly moved = new Map<number, number>();
  version = 3;

  constructor(nodes: readonly FakeNode[]) {
    this.nodes = nodes;
    for (const [n, node] of nodes.entries()) {
      node.owns = (at) => (this.moved.get(at) ?? shardOf(at)) === n + 1;
      node.onUnary = ({ method, request }) => {
        const { cursor, slot: only, afterKey }: ScanRequest = request;
        if (method !== 'ScanPage') return undefined;
        const told = JSON.parse(text(cursor) || '{}') as { slot?: number };
        const at = afterKey?.byteLength ? slotOf(afterKey) : (told.slot ?? only ?? 0);
        return node.owns(slot(at)) ? undefined : this.wrongShard(at);
      };
    }
    this.describe();
  }

  /** As a real node that knows better than the map of the client. */
  private wrongShard(at: number): ReturnType<typeof refusal> {
    const shardId = this.moved.get(at) ?? shardOf(at);
    const leaderAddress = this.nodes[shardId - 1]?.endpoint ?? '';
    return refusal('KV_WRONG_SHARD', { shardId, slotEpoch: 9, leaderNode: shardId, leaderAddress });
  }

  private describe(): void {
    const nodes = this.nodes.map(({ endpoint }, n) => ({
      nodeId: n + 1,
      peerAddress: '',
      clientAddress: endpoint,
      labels: [],
      weight: 100,
      state: 'up',
      stateSinceMs: 0,
    }));
    const shards = nodes.map(({ nodeId }) => {
      const both = [nodeId, (nodeId % 3) + 1];
      return { shardId: nodeId, replicas: both, nodes: both, replication: 2 };
    });
    const slots = shards.map(({ shardId }) => ({
      first: (shardId - 1) * third,
      last: Math.min(shardId * third, slotCount) - 1,
      shardId,
      epoch: 1,
    }));
    for (const node of this.nodes) Object.assign(node, { version: 3, nodes, shards, slots });
  }

  /** Which node was asked how often for a page. */
  get pagesAsked(): number[] {
    return this.nodes.map(({ unary }) => unary.filter(isPage).length);
  }
}

const isPage = ({ method }: { readonly method: string }): boolean => method === 'ScanPage';

const names = Array.from({ length: 60 }, (_, n) => `key-${n}`);
/** What a scan over all gives. */
const inOrder = [...names].sort((a, b) => slotOf(bytes(a)) - slotOf(bytes(b)) || (a < b ? -1 : 1));

async function withShards(
  run: (cluster: FakeCluster & { readonly shards: Shards }) => Promise<void>,
): Promise<void> {
  await withNodes({ nodes: 3 }, async (cluster) => {
    const shards = new Shards(cluster.nodes);
    for (const name of names) cluster.store.values.set(name, `value of ${name}`);
    for (const node of cluster.nodes) node.pageLengthMax = 7;
    await run({ ...cluster, shards });
  });
}

/** The client has the topology. */
async function informed({ client, nodes }: FakeCluster): Promise<void> {
  const used = (): boolean =>
    nodes.some(({ batches }) => batches.some((b) => b.header?.mapVersion));
  while (!used()) await client.get({ key: bytes('a') });
}

const keysOf = ({ kvs = [] }: ScanReply): string[] =>
  kvs.map(({ key }: KeyValueMessage) => text(key));

async function scanned(
  client: QuorateClient,
  request: ScanRequest = {},
  onPage: (page: ScanReply) => void | Promise<void> = () => undefined,
): Promise<string[]> {
  const keys: string[] = [];
  for await (const page of client.scan(request)) {
    keys.push(...keysOf(page));
    await onPage(page);
  }
  return keys;
}

describe('a scan of a client', () => {
  it('asks for each page the node that leads the shard of its slot, and nobody else', () =>
    withShards(async (cluster) => {
      const { client, shards, nodes } = cluster;
      await informed(cluster);
      expect(await scanned(client)).to.deep.equal(inOrder);
      const ofShard = [1, 2, 3].map(
        (shard) => names.filter((name) => shardOf(slotOf(bytes(name))) === shard).length,
      );
      expect(shards.pagesAsked).to.deep.equal(ofShard.map((keys) => Math.ceil(keys / 7)));
      const requests = nodes.flatMap(({ unary }) => unary.filter(isPage));
      const headers = requests.map(({ request }: { request: ScanRequest }) => request.header);
      expect(
        headers.every((header) => header?.redirect === true && header.mapVersion === 3),
      ).to.equal(true);
    }));

  it('asks any replica of that shard at weaker levels, in turns', () =>
    withShards(async (cluster) => {
      const { client, shards, nodes } = cluster;
      for (const node of nodes) node.owns = () => true;
      await informed(cluster);
      const first = inOrder[0] ?? '';
      const level = ReadLevel.STALE;
      for (let n = 0; n < 4; n++)
        for await (const _ of client.scan({ slot: slotOf(bytes(first)), level })) break;
      expect(shards.pagesAsked).to.deep.equal([2, 2, 0]);
    }));

  it('goes on where it was told when slots moved meanwhile: nothing is lost, nothing comes twice', () =>
    withShards(async (cluster) => {
      const { client, shards } = cluster;
      await informed(cluster);
      let pages = 0;
      const keys = await scanned(client, {}, () => {
        pages += 1;
        // From the middle of the first shard on to the third one, back and forth.
        for (let at = 1000; at < 3000; at++) shards.moved.set(at, pages % 2 === 0 ? 3 : 2);
      });
      expect(keys).to.deep.equal(inOrder);
    }));

  it('goes on at another node when the one it was at is gone', () =>
    withShards(async (cluster) => {
      const { client, shards, nodes } = cluster;
      await informed(cluster);
      const keys = await scanned(client, {}, (page) => {
        if (shards.moved.size > 0 || (page.nextSlot ?? 0) < third) return;
        nodes[1]?.kill();
        for (let at = 0; at < slotCount; at++) if (shardOf(at) === 2) shards.moved.set(at, 3);
      });
      expect(keys).to.deep.equal(inOrder);
      expect(shards.moved.size).to.be.greaterThan(0);
    }));

  it('is gone on with from its cursor, by another client too', () =>
    withShards(async (cluster) => {
      const { client, nodes } = cluster;
      const keys: string[] = [];
      let cursor: Uint8Array | undefined;
      for (let n = 0; n < 5; n++)
        for await (const page of client.scan({ ...(cursor && { cursor }) })) {
          keys.push(...keysOf(page));
          ({ cursor } = page);
          break;
        }
      const other = new QuorateClient({ endpoints: nodes.map(({ endpoint }) => endpoint) });
      keys.push(...(await scanned(other, { ...(cursor && { cursor }) })));
      other.close();
      expect(keys).to.deep.equal(inOrder);
    }));

  it('ends at its limit, with a cursor to go on with, and after a key goes on behind it', () =>
    withShards(async (cluster) => {
      await informed(cluster);
      const { client } = cluster;
      const pages: ScanReply[] = [];
      const first = await scanned(client, { limit: 30 }, (page) => void pages.push(page));
      expect(first).to.deep.equal(inOrder.slice(0, 30));
      expect(pages.map(({ done }) => done)).to.deep.equal(
        pages.map((_, n) => n === pages.length - 1),
      );
      const { cursor = new Uint8Array() } = pages.at(-1) ?? {};
      expect(await scanned(client, { cursor })).to.deep.equal(inOrder.slice(30));
      const afterKey = bytes(inOrder[40] ?? '');
      expect(await scanned(client, { afterKey })).to.deep.equal(inOrder.slice(41));
    }));

  it('without a topology asks any node, and follows what it says', () =>
    withShards(async ({ client, shards, nodes }) => {
      for (const node of nodes) node.version = 0;
      expect(await scanned(client)).to.deep.equal(inOrder);
      expect(shards.pagesAsked.every((count) => count > 0)).to.equal(true);
    }));

  it('is refused a page that says neither how to go on nor that it is the last', () =>
    withNodes({}, async ({ client, node, store }) => {
      store.page = () => ({ kvs: [] });
      const error = await errorOf(scanned(client));
      expect(error.code).to.equal('KV_INTERNAL');
      expect(node.unary.filter(isPage)).to.have.length(1);
    }));

  it('fails within its timeout when no replica of the next slot can read it, and says what each said', () =>
    withShards(async ({ client, nodes }) => {
      for (const node of nodes) node.onUnary = () => refusal('KV_UNAVAILABLE');
      const scan = client.scan({}, { timeoutMs: 300 });
      const error = await errorOf(scan.next());
      // The timeout may run out while an answer is awaited, or between two of them.
      expect(['KV_UNAVAILABLE', 'KV_DEADLINE']).to.include(error.code);
      expect(error.outcome).to.equal('notApplied');
      const refused = error.fields.attempts?.filter(({ code }) => code === 'KV_UNAVAILABLE');
      expect(new Set(refused?.map(({ endpoint }) => endpoint)).size).to.equal(2);
    }));

  it('gives every key once and in order, whatever moves and fails between two pages', async () => {
    const event = fc.constantFrom('none', 'none', 'move', 'refuse', 'forget');
    await fc.assert(
      fc.asyncProperty(
        fc.array(event, { maxLength: 20 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 0, max: slotCount - 1 }),
        (events, length, from) =>
          withShards(async ({ client, shards, nodes }) => {
            for (const node of nodes) {
              node.pageLengthMax = length;
              const { onUnary } = node;
              node.onUnary = (call) => {
                const next = isPage(call) ? events.shift() : undefined;
                if (next === 'move')
                  for (let at = from; at < Math.min(from + 4000, slotCount); at++)
                    shards.moved.set(at, 1 + (events.length % 3));
                if (next === 'refuse') return refusal('KV_UNAVAILABLE');
                if (next === 'forget')
                  return refusal('KV_NOT_LEADER', { leaderAddress: node.endpoint });
                return onUnary(call);
              };
            }
            expect(await scanned(client)).to.deep.equal(inOrder);
          }),
      ),
      { numRuns: 25 },
    );
  }).timeout(30_000);
});

describe('reads that any replica may answer', () => {
  it('are asked of nodes that have one, once the topology is known', () =>
    withShards(async (cluster) => {
      const { client, nodes } = cluster;
      await informed(cluster);
      const key = bytes(names.find((name) => shardOf(slotOf(bytes(name))) === 2) ?? '');
      for (const node of nodes) node.batches.length = 0;
      for (let n = 0; n < 6; n++) await client.get({ key, level: ReadLevel.STALE });
      expect(nodes.map(({ batches }) => batches.length)).to.deep.equal([0, 3, 3]);
      nodes[2]?.kill();
      await until('the other one alone', () => nodes[2]?.openStreams === 0);
      for (let n = 0; n < 4; n++) await client.get({ key, level: ReadLevel.STALE });
      expect(nodes[1]?.batches.length).to.be.at.least(7);
    }));
});
