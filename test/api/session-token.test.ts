import { expect } from 'chai';
import { codecOf } from '../../proto/definitions.js';
import type { SessionTokenMessage, SlotPositionMessage } from '../../proto/messages.js';
import { positionsOf, tokenFor } from '../../src/api/session-token.js';
import { KvError } from '../../src/errors.js';
import { slot } from '../../src/router/slot.js';
import type { SlotPosition } from '../../src/shard/slot-position.js';

const codec = codecOf<SessionTokenMessage>('quorate.v1.SessionToken');
const position = (fields: Partial<SlotPositionMessage>): SlotPositionMessage => ({
  slot: 1,
  epoch: 1,
  revision: 1,
  logTimeMs: 0,
  ...fields,
});

function tokenOf(clusterId: string, ...positions: SlotPositionMessage[]): { token: Uint8Array } {
  return { token: codec.encode({ clusterId, positions }) };
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

describe('a session token at the door', () => {
  it('D24: that is empty names nothing', () => {
    for (const header of [undefined, null, {}, { token: new Uint8Array() }])
      expect(positionsOf(header, 'here').size).to.equal(0);
  });

  it('D24: of another cluster is refused, and told which is which', () => {
    const error = refusal(() => positionsOf(tokenOf('there', position({})), 'here'));
    expect(error).to.include({ code: 'KV_TOKEN_MISMATCH', outcome: 'notApplied' });
    expect(error.message).to.include("'there'").and.include("'here'");
    expect(refusal(() => positionsOf(tokenOf('there'), 'here')).code, 'without positions').to.equal(
      'KV_TOKEN_MISMATCH',
    );
  });

  it('D24: names of each slot the furthest, and only what is asked for', () => {
    const header = tokenOf(
      'here',
      position({ epoch: 2, revision: 5 }),
      position({ revision: 9, logTimeMs: 7 }),
      position({ slot: 2 }),
    );
    const furthest = position({ epoch: 2, revision: 9, logTimeMs: 7 });
    expect([...positionsOf(header, 'here').values()]).to.deep.equal([
      furthest,
      position({ slot: 2 }),
    ]);
    expect([...positionsOf(header, 'here', slot(1)).values()]).to.deep.equal([furthest]);
  });

  it('is refused when it is no token, or names what cannot be', () => {
    const wrong = [
      { token: Buffer.from('nonsense') },
      tokenOf('here', position({ slot: 65_534 })),
      tokenOf('here', position({ revision: 2 ** 60 })),
    ];
    for (const header of wrong)
      expect(refusal(() => positionsOf(header, 'here')).code).to.equal('KV_INVALID');
  });

  it('D24: comes back only when it is asked for, of this cluster, one position for each slot', () => {
    const places = (): SlotPosition[] =>
      [3, 4].map((revision) => ({ ...position({ revision }), slot: slot(1) }));
    expect(tokenFor(undefined, 'here', places)).to.deep.equal({});
    expect(tokenFor({ returnToken: false }, 'here', places)).to.deep.equal({});
    const { token = new Uint8Array() } = tokenFor({ returnToken: true }, 'here', places);
    const { clusterId, positions } = codec.decode(token);
    expect(clusterId).to.equal('here');
    expect(positions.map(({ revision }) => revision)).to.deep.equal([4]);
  });
});
