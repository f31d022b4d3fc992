import { expect } from 'chai';
import fc from 'fast-check';
import { slotCount, slot, slotOf } from '../../src/router/slot.js';
import { Routes } from '../../src/client/routes.js';
import { KvError } from '../../src/errors.js';
import type { SlotRangeInfo } from '../../proto/messages.js';
import type { FakeNode } from './fake-node.js';
import { refusal, type BatchCall } from './fake-node.js';
import { bytes, errorOf, until, withNodes } from './fake-cluster.js';

/** Answers like a node that does not lead: forwards unless a redirect is wanted. */
const follow =
  (leader: () => string) =>
  (call: BatchCall): void => {
    const { header, operations = [] } = call.request;
    if (header?.redirect !== true) call.answer();
    else {
      const error = refusal('KV_NOT_LEADER', { leaderNode: 9, leaderAddress: leader() });
      call.reply(operations.map((each) => (each.get ? { get: { found: false } } : { error })));
    }
  };

function pair(nodes: readonly FakeNode[]): [FakeNode, FakeNode] {
  const [a, b] = nodes;
  if (a === undefined || b === undefined) throw new RangeError('two nodes');
  return [a, b];
}

const lengths = (node: FakeNode): number[] =>
  node.batches.map(({ operations = [] }) => operations.length);

describe('the way to the leader', () => {
  it('is learnt from a redirect, and taken at once the next time', () =>
    withNodes({ nodes: 2 }, async ({ client, nodes }) => {
      const [follower, leader] = pair(nodes);
      follower.onBatch = follow(() => leader.endpoint);
      await client.put({ key: bytes('a'), value: bytes('1') });
      const before = follower.batches.length;
      expect(follower.batches.at(-1)?.header?.redirect).to.equal(true);
      for (let n = 0; n < 5; n++) await client.put({ key: bytes('a'), value: bytes('2') });
      expect(follower.batches).to.have.length(before);
      expect(leader.batches).to.have.length(6);
    }));

  it('goes over the endpoints again when the leader is gone, and no write is lost or doubled', () =>
    withNodes({ nodes: 2 }, async ({ client, nodes, store }) => {
      const [first, leader] = pair(nodes);
      first.onBatch = follow(() => leader.endpoint);
      expect((await client.increment({ key: bytes('n'), delta: 1 })).value).to.equal(1);
      first.onBatch = (call) => {
        call.answer();
      };
      leader.onBatch = (call) => {
        call.apply();
        leader.kill();
      };
      expect((await client.increment({ key: bytes('n'), delta: 1 })).value).to.equal(2);
      expect(store.values.get('n')).to.equal('2');
      expect((await client.increment({ key: bytes('n'), delta: 1 })).value).to.equal(3);
    }));

  it('is left to the nodes when only they can reach the leader’s address', () =>
    withNodes({}, async ({ client, node }) => {
      node.onBatch = follow(() => '127.0.0.1:1');
      await client.put({ key: bytes('a'), value: bytes('1') });
      await client.put({ key: bytes('b'), value: bytes('1') });
      expect(node.batches.at(-1)?.header?.redirect).to.equal(false);
    }));

  it('ends when two nodes name each other: one of them is asked to forward', () =>
    withNodes({ nodes: 2 }, async ({ client, nodes, store }) => {
      const [a, b] = pair(nodes);
      a.onBatch = follow(() => b.endpoint);
      b.onBatch = follow(() => a.endpoint);
      await client.put({ key: bytes('a'), value: bytes('1') });
      expect(store.applied).to.deep.equal(['put a']);
    }));

  it('is kept for each shard once the slot map is known: one redirect, one batch per shard', () =>
    withNodes({ nodes: 2 }, async ({ client, nodes }) => {
      const [a, b] = pair(nodes);
      const half = slotCount / 2;
      const slots = [
        { first: 0, last: half - 1, shardId: 1, epoch: 1 },
        { first: half, last: slotCount - 1, shardId: 2, epoch: 1 },
      ];
      /** a leads shard 1, b leads shard 2. */
      const lead =
        (mine: number, other: FakeNode) =>
        ({ request, reply }: BatchCall): void => {
          const error = refusal('KV_NOT_LEADER', { leaderAddress: other.endpoint });
          reply(
            (request.operations ?? []).map(({ get, put }) => {
              if (get) return { get: { found: false } };
              const shard = slotOf(put?.key ?? bytes('')) < half ? 1 : 2;
              return shard === mine ? { put: { applied: true, revision: shard } } : { error };
            }),
          );
        };
      a.onBatch = lead(1, b);
      b.onBatch = lead(2, a);
      for (const node of [a, b]) Object.assign(node, { version: 3, slots });
      const keys = Array.from({ length: 200 }, (_, n) => `key${n}`);
      const all = (): Promise<unknown> =>
        Promise.all(keys.map((key) => client.put({ key: bytes(key), value: bytes('v') })));
      const watched = (): number => a.watches.length + b.watches.length;
      await all();
      await until('the slot map', () => watched() > 0);
      await client.put({ key: bytes('key1'), value: bytes('v') });
      await all();
      for (const node of [a, b]) node.batches.length = 0;
      await all();
      const shard1 = keys.filter((key) => slotOf(bytes(key)) < half).length;
      expect(lengths(a)).to.deep.equal([shard1]);
      expect(lengths(b)).to.deep.equal([keys.length - shard1]);
      expect(watched()).to.equal(1);
    }));

  it('D31: to a pinned key is learnt from an error that names the pin, and is no way for its hash slot', () =>
    withNodes({ nodes: 2 }, async ({ client, nodes }) => {
      const [a, b] = pair(nodes);
      const slots = [{ first: 0, last: slotCount - 1, shardId: 1, epoch: 1 }];
      const elsewhere = refusal('KV_WRONG_SHARD', {
        shardId: 2,
        slotEpoch: 2,
        pinSlot: 16_384,
        leaderNode: 2,
        leaderAddress: b.endpoint,
      });
      /** Has all but the pinned key, or that alone. */
      const having =
        (isPin: boolean) =>
        ({ request, reply }: BatchCall): void => {
          reply(
            (request.operations ?? []).map(({ get, put }) => {
              if (get) return { get: { found: false } };
              const isPinned = Buffer.from(put?.key ?? []).toString() === 'busy';
              return isPinned === isPin
                ? { put: { applied: true, revision: isPin ? 2 : 1 } }
                : { error: elsewhere };
            }),
          );
        };
      a.onBatch = having(false);
      b.onBatch = having(true);
      for (const node of [a, b]) Object.assign(node, { version: 3, slots });
      const put = (key: string): Promise<unknown> =>
        client.put({ key: bytes(key), value: bytes('v') });
      await put('{busy}');
      await until('the slot map', () => a.watches.length + b.watches.length > 0);
      await put('{busy}');
      expect(await put('busy')).to.include({ revision: 2 });
      for (const node of [a, b]) node.batches.length = 0;
      expect(await put('{busy}')).to.include({ revision: 1 });
      expect([a.batches.length, b.batches.length]).to.deep.equal([1, 0]);
      const pin = { slot: 16_384, key: bytes('busy'), prefix: false, hashSlot: 0, state: 'pinned' };
      const pins = [{ ...pin, shardId: 2, epoch: 2, target: 2, sinceMs: 0 }];
      for (const node of [a, b]) Object.assign(node, { version: 4, pins });
      for (const node of [a, b]) node.tell();
      const untilMs = Date.now() + 10_000;
      for (let isStraight = false; !isStraight;) {
        expect(Date.now(), 'the pin is asked for at its shard').to.be.below(untilMs);
        a.batches.length = 0;
        await put('busy');
        isStraight = a.batches.length === 0;
      }
    }));

  it('is followed by calls of their own too', () =>
    withNodes({ nodes: 2, batching: false }, async ({ client, nodes }) => {
      const [follower, leader] = pair(nodes);
      follower.onUnary = ({ method }) =>
        method === 'Put' || method === 'Txn'
          ? refusal('KV_NOT_LEADER', { leaderAddress: leader.endpoint })
          : undefined;
      for (let n = 0; n < 3; n++) await client.put({ key: bytes('a'), value: bytes('1') });
      const putsAt = (node: FakeNode): number =>
        node.unary.filter(({ method }) => method === 'Put').length;
      expect([putsAt(follower), putsAt(leader)]).to.deep.equal([1, 3]);
    }));
});

describe('hints of a client', () => {
  const error = (fields: Partial<KvError['fields']>): KvError =>
    new KvError('refused', { code: 'KV_NOT_LEADER', outcome: 'notApplied', ...fields });

  it('find the shard of every slot, whatever the ranges', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer({ min: 1, max: slotCount - 1 }), { maxLength: 50 }),
        fc.array(fc.integer({ min: 0, max: slotCount - 1 }), { minLength: 1, maxLength: 50 }),
        (cuts, slots) => {
          const firsts = [0, ...cuts.sort((x, y) => x - y)];
          const ranges = firsts.map((first, n): SlotRangeInfo => ({
            first,
            last: (firsts[n + 1] ?? slotCount) - 1,
            shardId: n + 1,
            epoch: 1,
          }));
          const routes = new Routes(['a:1']);
          const rest = {
            clusterId: '',
            nodes: [],
            shards: [],
            document: '',
            metadataNodes: [],
            operations: [],
            settings: [],
            migrations: [],
            pins: [],
          };
          routes.useTopology({ ...rest, version: 1, slots: ranges });
          for (const each of [...slots, ...firsts]) {
            const range = ranges.find(({ first, last }) => first <= each && each <= last);
            expect(routes.shardOf(slot(each))).to.equal(range?.shardId);
          }
        },
      ),
    );
  });

  it('are forgotten with the node they name, and endpoints that fail are passed by', () => {
    const routes = new Routes(['a:1', 'b:1']);
    routes.onFailure(slot(1), 'a:1', error({ leaderAddress: 'c:1' }));
    expect(routes.endpointOf(slot(1))).to.equal('c:1');
    expect(routes.endpointOf(slot(2))).to.equal('a:1');
    routes.onFailure(slot(1), 'c:1', error({ unreachable: true }));
    expect(routes.endpointOf(slot(1))).to.equal('a:1');
    // Just tried: it is not gone to again at once.
    routes.onFailure(slot(1), 'a:1', error({ leaderAddress: 'c:1' }));
    expect(routes.endpointOf(slot(1))).to.equal('a:1');
    for (let n = 0; n < 3; n++) routes.onFailure(slot(2), 'a:1', error({ unreachable: true }));
    expect(routes.endpointOf(slot(2))).to.equal('b:1');
    routes.onFailure(slot(2), 'b:1', error({ unreachable: true }));
    expect(['a:1', 'b:1']).to.include(routes.endpointOf(slot(2)));
  });

  it('an overloaded leader stays the leader', () => {
    const routes = new Routes(['a:1', 'b:1']);
    routes.onFailure(slot(1), 'a:1', error({ leaderAddress: 'b:1' }));
    routes.onFailure(slot(1), 'b:1', error({ code: 'KV_OVERLOADED' }));
    expect(routes.endpointOf(slot(1))).to.equal('b:1');
    routes.onFailure(slot(1), 'b:1', error({ code: 'KV_UNAVAILABLE' }));
    expect(routes.endpointOf(slot(1))).to.equal('a:1');
  });
});

describe('errors of a client', () => {
  it('say code, outcome, message, and what each of the last eight attempts met', () =>
    withNodes({ timeoutMs: 2_000 }, async ({ client, node }) => {
      await client.get({ key: bytes('a') });
      node.onBatch = ({ request, reply }) => {
        reply((request.operations ?? []).map(() => ({ error: refusal('KV_UNAVAILABLE') })));
      };
      const failed = await errorOf(client.get({ key: bytes('a') }));
      const { attempts = [], attemptCount = 0 } = failed.fields;
      expect(attempts).to.have.length(8);
      expect(attemptCount).to.be.greaterThan(8);
      const lines = String(failed).split('\n');
      // The time may also have run out before the next attempt was sent, or while it was under way.
      expect(lines[0]).to.match(
        /^KvError (KV_UNAVAILABLE \(nothing was applied\): refused: KV_UNAVAILABLE|KV_DEADLINE \(nothing was applied\): .+)$/,
      );
      expect(lines[1]).to.equal(`  ${attemptCount} failed attempts, the last:`);
      expect(lines.slice(2)).to.deep.equal(
        attempts.map(() => `  ${node.endpoint} KV_UNAVAILABLE: refused: KV_UNAVAILABLE`),
      );
    }));

  it('tell an unknown outcome and what to do about it', () => {
    const failed = new KvError('lost', { code: 'KV_UNKNOWN_OUTCOME', outcome: 'unknown' });
    expect(String(failed)).to.equal(
      'KvError KV_UNKNOWN_OUTCOME (it may have been applied: read before you write again): lost',
    );
  });

  it('a key that is no bytes is refused before it is sent', () =>
    withNodes({}, async ({ client, node, store }) => {
      const key: unknown = 'text';
      const request = { key: key as Uint8Array, value: bytes('v') };
      const failed = await errorOf(client.put(request));
      expect([failed.code, failed.outcome]).to.deep.equal(['KV_INVALID', 'notApplied']);
      expect(failed.message).to.contain('key must be a Uint8Array, got string');
      expect((await errorOf(client.get(request))).code).to.equal('KV_INVALID');
      expect(store.applied).to.deep.equal([]);
      expect(node.unary).to.deep.equal([]);
    }));
});
