import { expect } from 'chai';
import { codecOf } from '../../proto/definitions.js';
import type { SessionTokenMessage, SlotPositionMessage } from '../../proto/messages.js';
import { KvError, SessionToken } from '../../src/client/index.js';
import { Routes } from '../../src/client/routes.js';
import { slot } from '../../src/router/slot.js';

const codec = codecOf<SessionTokenMessage>('quorate.v1.SessionToken');
const at = (number: number, revision: number, more = {}): SlotPositionMessage => ({
  slot: number,
  epoch: 1,
  revision,
  logTimeMs: 0,
  ...more,
});

function reply(clusterId: string, ...positions: SlotPositionMessage[]): { token: Uint8Array } {
  return { token: codec.encode({ clusterId, positions }) };
}

function sent(token: SessionToken, slots: Parameters<SessionToken['headerOf']>[0]): unknown {
  const { token: bytes = new Uint8Array(), returnToken } = token.headerOf(slots);
  expect(returnToken).to.equal(true);
  return codec
    .decode(bytes)
    .positions.map(({ slot: number, epoch, revision, logTimeMs }) =>
      at(number, revision, { epoch, logTimeMs }),
    );
}

function refusal(run: () => unknown): KvError {
  try {
    run();
  } catch (error) {
    if (error instanceof KvError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

describe('a session token of the client', () => {
  it('D24: only rises: each number of a slot is the greatest that a reply brought', () => {
    const token = new SessionToken();
    token.learn(reply('c', at(1, 5), at(2, 1)));
    token.learn(reply('c', at(1, 3, { epoch: 2, logTimeMs: 9 })));
    token.learn(undefined);
    token.learn({});
    expect(sent(token, { from: slot(0) })).to.deep.equal([
      at(1, 5, { epoch: 2, logTimeMs: 9 }),
      at(2, 1),
    ]);
  });

  it('D24: sends with a read the slot that it reads, and with a write none', () => {
    const token = new SessionToken();
    expect(token.headerOf({ from: slot(0) }).token).to.have.length(0);
    token.learn(reply('c', at(1, 5), at(2, 1)));
    expect(sent(token, slot(2))).to.deep.equal([at(2, 1)]);
    expect(sent(token, slot(3))).to.deep.equal([]);
    expect(sent(token, 'none')).to.deep.equal([]);
  });

  it('is the same from its text, and another one afterwards', () => {
    const token = new SessionToken();
    expect(SessionToken.parse(String(token))).to.deep.equal(token);
    token.learn(reply('c', at(16_383, 2 ** 50)));
    const copy = SessionToken.parse(String(token));
    expect(copy).to.deep.equal(token);
    copy.learn(reply('c', at(1, 1)));
    expect(copy).to.not.deep.equal(token);
  });

  it('takes in what another one of its cluster has seen, and refuses one of another cluster', () => {
    const [token, other] = [new SessionToken(), new SessionToken()];
    other.learn(reply('c', at(1, 5)));
    token.merge(other);
    expect(token).to.deep.equal(other);
    other.merge(new SessionToken());
    expect(token).to.deep.equal(other);
    const foreign = new SessionToken();
    foreign.learn(reply('d', at(1, 9)));
    const error = refusal(() => {
      token.merge(foreign);
    });
    expect(error.code).to.equal('KV_TOKEN_MISMATCH');
    expect(token, 'unchanged').to.deep.equal(other);
  });

  it('is not made of other text', () => {
    for (const text of ['not a token!', 'bm9uc2Vuc2U', 'CgE'])
      expect(refusal(() => SessionToken.parse(text)).code, text).to.equal('KV_INVALID');
  });
});

describe('reads that any replica may answer', () => {
  it('go to each endpoint in its turn, and not to one that was just out of reach', () => {
    const endpoints = ['a:1', 'b:1', 'c:1'];
    const routes = new Routes(endpoints);
    const turns = (): string[] => Array.from({ length: 6 }, () => routes.nextEndpoint());
    expect(turns()).to.deep.equal([...endpoints, ...endpoints]);
    const gone = new KvError('gone', {
      code: 'KV_UNAVAILABLE',
      outcome: 'notApplied',
      unreachable: true,
    });
    routes.onFailure(undefined, 'b:1', gone);
    expect(new Set(turns())).to.deep.equal(new Set(['a:1', 'c:1']));
  });
});
