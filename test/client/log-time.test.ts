import { expect } from 'chai';
import { LogTime } from '../../src/client/log-time.js';
import { SessionBook } from '../../src/client/session-book.js';
import { KvError, type ErrorCode } from '../../src/errors.js';
import { bytes, errorOf, until, withNodes } from './fake-cluster.js';
import { refusal, text } from './fake-node.js';

const refused = (code: ErrorCode): KvError =>
  new KvError(`refused: ${code}`, { code, outcome: 'notApplied' });

const within = (ms: number, signal?: AbortSignal) => ({ deadline: Date.now() + ms, signal });

describe('the log time that a client asks for', () => {
  it('is asked of the shard of the write, with one question for all that wait', async () => {
    const book = new SessionBook();
    const asked: string[] = [];
    const time = new LogTime(book, async (key) => {
      asked.push(text(key));
      await new Promise(setImmediate);
      book.learn(1000);
    });
    await Promise.all(['a', 'b', 'c'].map((key) => time.known(bytes(key), within(5000))));
    await time.known(bytes('d'), within(5000));
    expect(asked).to.deep.equal(['a']);
  });

  it('is had although one shard has no leader: its writes wait, and no others', async () => {
    const book = new SessionBook();
    const asked: string[] = [];
    const time = new LogTime(book, async (key) => {
      asked.push(text(key));
      await new Promise(setImmediate);
      if (text(key) === 'led') book.learn(1000);
      else throw refused('KV_UNAVAILABLE');
    });
    await Promise.all(['lost', 'led'].map((key) => time.known(bytes(key), within(5000))));
    expect(asked).to.deep.equal(['lost', 'led']);
  });

  it('is not had by a key that is refused, which ends no other write', async () => {
    const book = new SessionBook();
    const time = new LogTime(book, (key) => {
      if (key.byteLength === 0) return Promise.reject(refused('KV_INVALID'));
      book.learn(1000);
      return Promise.resolve();
    });
    const [wrong, right] = [bytes(''), bytes('k')].map((key) => time.known(key, within(5000)));
    expect((await errorOf(wrong ?? Promise.resolve())).code).to.equal('KV_INVALID');
    await right;
  });

  it('is waited for until the deadline or the signal, however quickly nodes refuse', async () => {
    const time = new LogTime(new SessionBook(), () => Promise.reject(refused('KV_UNAVAILABLE')));
    const stop = new AbortController();
    const aborted = errorOf(time.known(bytes('a'), within(60_000, stop.signal)));
    const late = errorOf(time.known(bytes('b'), within(120)));
    expect((await late).message).to.equal('refused: KV_UNAVAILABLE');
    stop.abort();
    expect((await aborted).code).to.equal('KV_CANCELLED');
    expect((await errorOf(time.known(bytes('c'), within(0)))).code).to.equal('KV_UNAVAILABLE');
  });

  it('is the leader’s: a reply without one teaches nothing', () =>
    withNodes({}, async ({ client, node, store }) => {
      node.logTimeMs = () => 0;
      await client.get({ key: bytes('k') });
      const error = await errorOf(client.put({ key: bytes('k'), value: bytes('v') }));
      expect([error.code, error.message]).to.deep.equal([
        'KV_INTERNAL',
        'the leader did not tell its time',
      ]);
      expect(store.applied).to.deep.equal([]);
      node.logTimeMs = () => Date.now();
      await client.put({ key: bytes('k'), value: bytes('v') });
      expect(store.applied).to.deep.equal(['put k']);
    }));

  it('R50: holds up no write of another shard over the wire either', () =>
    withNodes({ timeoutMs: 20_000 }, async ({ client, node, store }) => {
      node.onUnary = ({ method, request }) =>
        method === 'Get' && text((request as { key: Uint8Array }).key) === 'lost'
          ? refusal('KV_UNAVAILABLE', { retryAfterMs: 100 })
          : undefined;
      const lost = client.put({ key: bytes('lost'), value: bytes('v') });
      await until('the question', () => node.unary.length > 0);
      await client.put({ key: bytes('led'), value: bytes('v') });
      await lost;
      expect(store.applied).to.have.members(['put lost', 'put led']);
    }));
});
