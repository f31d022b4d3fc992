import { expect } from 'chai';
import { SessionBook } from '../../src/client/session-book.js';

describe('sessions of a client', () => {
  it('D21: number every write anew under one random client id', () => {
    const book = new SessionBook();
    book.learn(1000);
    const [a, b] = [book.begin(), book.begin()];
    expect([a.sequence, b.sequence]).to.deep.equal([1, 2]);
    expect(Buffer.from(a.clientId)).to.deep.equal(Buffer.from(b.clientId));
    expect(a.clientId.byteLength).to.equal(16);
    expect(Buffer.from(new SessionBook().begin().clientId)).to.not.deep.equal(
      Buffer.from(a.clientId),
    );
  });

  it('D21: tell the lowest sequence that is still open', () => {
    const book = new SessionBook();
    book.learn(1000);
    const [a, b, c] = [book.begin(), book.begin(), book.begin()];
    book.end(b);
    expect(book.begin().firstUnacknowledged).to.equal(a.sequence);
    book.end(a);
    expect(book.begin().firstUnacknowledged).to.equal(c.sequence);
  });

  it('D21: end by the log time of the server, about 50 s ahead', () => {
    const book = new SessionBook();
    expect(book.knowsLogTime).to.equal(false);
    book.learn(5_000_000);
    book.learn(4_000_000);
    expect(book.knowsLogTime).to.equal(true);
    expect(book.begin().notAfterMs).to.be.within(5_050_000, 5_051_000);
  });

  it('D21: end by the time of a shard that is behind the others, until it says that it is not', () => {
    const book = new SessionBook();
    book.learn(5_000_000);
    book.learnBehind(2, 1_000_000);
    book.learn(5_000_001);
    const lastMoments = (): number[] => [1, 2].map((shard) => book.begin(shard).notAfterMs ?? 0);
    expect(lastMoments().map((ms) => Math.floor(ms / 10_000))).to.deep.equal([505, 105]);
    book.forgetBehind(2);
    expect(lastMoments().map((ms) => Math.floor(ms / 10_000))).to.deep.equal([505, 505]);
  });
});
