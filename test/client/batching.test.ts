import { expect } from 'chai';
import type { BatchRequest, OperationMessage, PutReply } from '../../proto/messages.js';
import type { BatchCall } from './fake-node.js';
import { refusal, text } from './fake-node.js';
import { bytes, errorOf, until, withNodes } from './fake-cluster.js';

const put = (key: string): OperationMessage => ({ put: { key: bytes(key), value: bytes('v') } });

/** "put a", "get b" */
function shown({ operations = [] }: BatchRequest): string[] {
  return operations.map(({ get, put: p, delete: d, increment }) => {
    const kind = get ? 'get' : p ? 'put' : d ? 'delete' : 'increment';
    return `${kind} ${text((get ?? p ?? d ?? increment)?.key)}`;
  });
}

/** Puts of one turn: their number is their key. */
function puts(
  client: { put(request: { key: Uint8Array; value: Uint8Array }): Promise<PutReply> },
  count: number,
): Promise<PutReply[]> {
  return Promise.all(
    Array.from({ length: count }, (_, n) => client.put({ key: bytes(`k${n}`), value: bytes('v') })),
  );
}

describe('operations begun in one turn of the event loop', () => {
  it('go out as one batch over one stream, in the order they began', () =>
    withNodes({}, async ({ client, node }) => {
      await client.put({ key: bytes('first'), value: bytes('1') });
      node.batches.length = 0;
      node.unary.length = 0;
      const get = client.get({ key: bytes('first') });
      const increment = client.increment({ key: bytes('n'), delta: 2 });
      const written = client.put({ key: bytes('a'), value: bytes('x') });
      const deleted = client.delete({ key: bytes('first') });
      expect(text((await get).kv?.value)).to.equal('1');
      expect((await increment).value).to.equal(2);
      expect((await written).applied).to.equal(true);
      expect((await deleted).existed).to.equal(true);
      expect(node.batches.map(shown)).to.deep.equal([
        ['get first', 'increment n', 'put a', 'delete first'],
      ]);
      expect(node.streams).to.equal(1);
      expect(node.unary).to.deep.equal([]);
    }));

  it('also those begun by the answers of the turn', () =>
    withNodes({}, async ({ client, node }) => {
      await puts(client, 2);
      node.batches.length = 0;
      await Promise.all(
        ['a', 'b'].map(async (key) => {
          await client.get({ key: bytes(key) });
          await client.get({ key: bytes(`${key}2`) });
        }),
      );
      expect(node.batches.map(shown)).to.deep.equal([
        ['get a', 'get b'],
        ['get a2', 'get b2'],
      ]);
    }));

  it('are calls of their own when batching is off', () =>
    withNodes({ batching: false }, async ({ client, node }) => {
      await puts(client, 3);
      await client.get({ key: bytes('k1') });
      expect(node.streams).to.equal(0);
      expect(node.unary.filter(({ method }) => method === 'Put')).to.have.length(3);
      expect(await client.batch([put('x'), put('y')])).to.have.length(2);
      expect(node.unary.filter(({ method }) => method === 'Batch')).to.have.length(1);
      expect(node.streams).to.equal(0);
    }));

  it('each get the answer of their own batch, also when answers overtake', () =>
    withNodes({}, async ({ client, node }) => {
      await puts(client, 1);
      const held: BatchCall[] = [];
      node.onBatch = (call) => held.push(call);
      const first = client.increment({ key: bytes('n'), delta: 1 });
      await until('the first batch', () => held.length === 1);
      const second = client.increment({ key: bytes('n'), delta: 10 });
      await until('the second batch', () => held.length === 2);
      held[1]?.answer();
      expect((await second).value).to.equal(10);
      held[0]?.answer();
      expect((await first).value).to.equal(11);
    }));

  it('fail one by one: a refusal concerns its own operation', () =>
    withNodes({}, async ({ client, node }) => {
      await puts(client, 1);
      node.onBatch = ({ request, reply }) => {
        reply(
          (request.operations ?? []).map((_, n) =>
            n === 1
              ? { error: refusal('KV_NOT_INTEGER') }
              : { put: { applied: true, revision: n } },
          ),
        );
      };
      const [a, b, c] = ['a', 'b', 'c'].map((key) =>
        client.put({ key: bytes(key), value: bytes('v') }),
      );
      expect((await a)?.revision).to.equal(0);
      expect((await c)?.revision).to.equal(2);
      const error = await errorOf(b ?? Promise.resolve());
      expect([error.code, error.outcome]).to.deep.equal(['KV_NOT_INTEGER', 'notApplied']);
      expect(error.fields.attempts).to.have.length(1);
    }));

  it('may be 10,000: batches of at most 1,000, one read for the time, each applied once', () =>
    withNodes({}, async ({ client, node, store }) => {
      const replies = await puts(client, 10_000);
      expect(replies.every(({ applied }) => applied)).to.equal(true);
      expect(store.applied).to.have.length(10_000);
      expect(new Set(store.applied).size).to.equal(10_000);
      const sizes = node.batches.map(({ operations = [] }) => operations.length);
      expect(Math.max(...sizes)).to.be.at.most(1000);
      expect(sizes).to.have.length.below(20);
      expect(node.unary.map(({ method }) => method)).to.deep.equal(['Get']);
    }));

  it('D21: run at most 500 ahead of the oldest write of their slot, so that its record is still there', () =>
    withNodes({}, async ({ client, node, store }) => {
      await puts(client, 1);
      node.batches.length = 0;
      const held: BatchCall[] = [];
      node.onBatch = (call) => held.push(call);
      const replies = Promise.all(
        Array.from({ length: 1200 }, () => client.increment({ key: bytes('hot'), delta: 1 })),
      );
      const sent = (): number =>
        node.batches.flatMap(shown).filter((each) => each === 'increment hot').length;
      await until('the first of them', () => sent() >= 500);
      await client.get({ key: bytes('x') }, { timeoutMs: 50 }).catch(() => undefined);
      expect(sent()).to.equal(500);
      node.onBatch = (call) => {
        call.answer();
      };
      for (const call of held) call.answer();
      const values = (await replies).map(({ value }) => value);
      expect(values).to.deep.equal(values.map((_, n) => n + 1));
      expect(store.values.get('hot')).to.equal('1200');
    }));

  it('are bounded: what is not answered, and what waits in the client', () =>
    withNodes({}, async ({ client, node }) => {
      await puts(client, 1);
      node.batches.length = 0;
      node.onBatch = () => undefined;
      const value = Buffer.alloc(512 * 1024);
      const errors: string[] = [];
      const waiting = Array.from({ length: 600 }, (_, n) =>
        client.put({ key: bytes(`k${n}`), value }).then(
          () => undefined,
          (error: unknown) => errors.push(String(error)),
        ),
      );
      await until('refusals', () => errors.length > 0);
      expect(errors.every((each) => /KV_OVERLOADED \(nothing was applied\)/.test(each))).to.equal(
        true,
      );
      // 600 x 512 KiB against 256 MiB.
      expect(errors.length).to.be.within(85, 95);
      await until('the stream is full', () => node.batches.length >= 16);
      client.close();
      await Promise.all(waiting);
      // 8 MiB without an answer, and the one that goes over it.
      expect(node.batches.length).to.be.at.most(17);
    }));

  it('go alone when they are large', () =>
    withNodes({}, async ({ client, node }) => {
      await puts(client, 1);
      node.batches.length = 0;
      node.unary.length = 0;
      const large = client.put({ key: bytes('large'), value: Buffer.alloc(2 * 1024 * 1024) });
      await Promise.all([large, client.put({ key: bytes('small'), value: bytes('v') })]);
      expect(node.batches.map(shown)).to.deep.equal([['put small']]);
      expect(node.unary.map(({ method }) => method)).to.deep.equal(['Batch']);
    }));

  it('go one by one when a batch is refused as a whole', () =>
    withNodes({}, async ({ client, node, store }) => {
      node.onBatch = (call) => {
        const { operations = [] } = call.request;
        if (operations.length <= 1) call.answer();
        else call.reply(operations.map(() => ({ error: refusal('KV_TOO_LARGE') })));
      };
      await puts(client, 5);
      expect(store.applied).to.have.length(5);
    }));
});

describe('deadlines and signals inside of a batch', () => {
  it('D04: end the waiting of their own operation; what was sent is unknown, a read is not', () =>
    withNodes({}, async ({ client, node }) => {
      await puts(client, 1);
      const held: BatchCall[] = [];
      node.onBatch = (call) => held.push(call);
      const short = errorOf(client.increment({ key: bytes('n'), delta: 1 }, { timeoutMs: 60 }));
      const read = errorOf(client.get({ key: bytes('n') }, { timeoutMs: 60 }));
      const long = client.increment({ key: bytes('m'), delta: 1 });
      const [shortError, readError] = await Promise.all([short, read]);
      expect([shortError.code, shortError.outcome]).to.deep.equal(['KV_DEADLINE', 'unknown']);
      expect([readError.code, readError.outcome]).to.deep.equal(['KV_DEADLINE', 'notApplied']);
      held[0]?.answer();
      expect((await long).value).to.equal(1);
      expect(held).to.have.length(1);
    }));

  it('D04: an abort rejects as unknown what was sent, as not applied what was not, and nothing else', () =>
    withNodes({}, async ({ client, node, store }) => {
      await puts(client, 1);
      const held: BatchCall[] = [];
      node.onBatch = (call) => held.push(call);
      const controller = new AbortController();
      const { signal } = controller;
      const sent = errorOf(client.increment({ key: bytes('sent'), delta: 1 }, { signal }));
      const other = client.increment({ key: bytes('other'), delta: 1 });
      await until('the batch', () => held.length === 1);
      const unsent = errorOf(client.increment({ key: bytes('unsent'), delta: 1 }, { signal }));
      controller.abort();
      const late = errorOf(client.increment({ key: bytes('late'), delta: 1 }, { signal }));
      expect((await sent).outcome).to.equal('unknown');
      for (const error of [await unsent, await late])
        expect([error.code, error.outcome]).to.deep.equal(['KV_CANCELLED', 'notApplied']);
      held[0]?.answer();
      expect((await other).value).to.equal(1);
      node.onBatch = (call) => {
        call.answer();
      };
      await client.get({ key: bytes('x') });
      expect(store.applied.filter((each) => /late|unsent/.test(each))).to.deep.equal([]);
    }));

  it('one signal may stand for 10,000 operations', () =>
    withNodes({}, async ({ client }) => {
      const warnings: string[] = [];
      const onWarning = (warning: Error): number => warnings.push(warning.message);
      process.on('warning', onWarning);
      const { signal } = new AbortController();
      await Promise.all(
        Array.from({ length: 10_000 }, (_, n) => client.get({ key: bytes(`k${n}`) }, { signal })),
      );
      // Warnings are told on a later turn.
      await new Promise((resolve) => setImmediate(resolve));
      process.off('warning', onWarning);
      expect(warnings).to.deep.equal([]);
    }));

  it('a node that stays silent is left for another one, and its stream is cut', () =>
    withNodes({ nodes: 2, timeoutMs: 10_000 }, async ({ client, nodes, store }) => {
      await puts(client, 1);
      const [silent, other] = nodes;
      if (silent === undefined || other === undefined) throw new Error('two nodes');
      silent.onBatch = () => undefined;
      const replies = await puts(client, 20);
      expect(replies).to.have.length(20);
      expect(new Set(store.applied).size).to.equal(20);
      await until('the stream is cut', () => silent.openStreams === 0);
      // Timers of one moment may take two turns.
      expect(other.batches).to.have.length.below(4);
    })).timeout(15_000);
});

describe('a batch of any length', () => {
  it('is split, and its results come in order', () =>
    withNodes({}, async ({ client, node }) => {
      const operations = Array.from({ length: 25_000 }, (_, n): OperationMessage =>
        n % 2 === 0
          ? { put: { key: bytes(`k${n}`), value: bytes(`v${n}`) } }
          : { get: { key: bytes(`absent${n}`) } },
      );
      const results = await client.batch(operations, { timeoutMs: 20_000 });
      expect(results).to.have.length(25_000);
      expect(results.every((each, n) => (n % 2 === 0 ? each.put?.applied : each.get))).to.equal(
        true,
      );
      const lengths = node.batches.map((each) => each.operations?.length ?? 0);
      expect(Math.max(...lengths)).to.be.at.most(1000);
    })).timeout(20_000);

  it('tells failures among the results, with the outcome, and is empty when nothing was asked', () =>
    withNodes({}, async ({ client, node }) => {
      await puts(client, 1);
      node.onUnary = () => refusal('KV_INVALID');
      node.onBatch = (call) => {
        const { operations = [] } = call.request;
        call.reply(
          operations.map(({ get }) =>
            get ? { error: refusal('KV_INVALID') } : { put: { applied: true, revision: 9 } },
          ),
        );
      };
      const results = await client.batch([put('a'), { get: { key: bytes('b') } }]);
      expect(results[0]?.put?.revision).to.equal(9);
      expect([results[1]?.error?.code, results[1]?.error?.outcome]).to.deep.equal([
        'KV_INVALID',
        0,
      ]);
      expect(await client.batch([])).to.deep.equal([]);
    }));
});
