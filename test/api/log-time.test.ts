import { expect } from 'chai';
import { Dispatch, type ReadResult, type ShardAccess } from '../../src/api/dispatch.js';
import { Forwarder } from '../../src/api/forwarder.js';
import type { KvError } from '../../src/errors.js';
import { slotOf } from '../../src/router/slot.js';
import { ManualClock } from '../support/manual-clock.js';

const key = Buffer.from('k');

/** One read of a shard that has a replica here. */
function read(
  { clock, shard }: { readonly clock: ManualClock; readonly shard: ShardAccess },
  wantLogTime: boolean,
): { answer: { error: KvError | undefined; result: ReadResult | undefined } | undefined } {
  const place = { home: slotOf(key), slot: () => slotOf(key) };
  const dispatch = new Dispatch({
    clock,
    forwarder: new Forwarder(clock),
    routeOf: () => ({ kind: 'local', shard }),
    slotOf,
    startOf: () => place,
    addressOf: (node) => `node-${node}:7400`,
    clusterId: 'test',
    mapVersion: () => 1,
    ownerOf: () => undefined,
    onOwner: () => undefined,
    onMapVersion: () => undefined,
    diskFull: () => false,
  });
  const call = { deadlineMs: 60_000, forwarded: false, ended: false, mayHaveApplied: false };
  const asked: ReturnType<typeof read> = { answer: undefined };
  dispatch.read(
    {
      place,
      keys: [key],
      level: { kind: 'linearizable' },
      wantLogTime,
      call,
      redirect: true,
      path: '/quorate.v1.KV/Get',
      request: () => new Uint8Array(),
    },
    (error, result) => (asked.answer = { error, result }),
  );
  return asked;
}

/** Reads at once; leads or follows node 2, and its time is what the test says. */
function shardThat(isLeader: boolean, logTimeMs: () => number): ShardAccess {
  return {
    isLeader,
    leaderNode: isLeader ? 1 : 2,
    write: () => undefined,
    scan: () => undefined,
    read: (_keys, _level, _call, done) => {
      done(undefined, {
        values: [undefined],
        refused: new Map(),
        positionsAt: () => [],
        logTimeMs: logTimeMs(),
      });
    },
  };
}

describe('a read that asks for the log time', () => {
  it('D21: is the leader’s: a follower says who that is, and answers any other read itself', () => {
    const at = { clock: new ManualClock(), shard: shardThat(false, () => 0) };
    const { error } = read(at, true).answer ?? {};
    expect([error?.code, error?.fields.leaderAddress]).to.deep.equal([
      'KV_NOT_LEADER',
      'node-2:7400',
    ]);
    expect(read(at, false).answer?.result?.logTimeMs).to.equal(0);
  });

  it('D21: waits for the time of a leader that was elected just now', async () => {
    const clock = new ManualClock();
    let timeMs = 0;
    const asked = read({ clock, shard: shardThat(true, () => timeMs) }, true);
    expect(asked.answer).to.equal(undefined);
    timeMs = 77;
    clock.jump(100);
    await clock.settle();
    expect(asked.answer?.result?.logTimeMs).to.equal(77);
  });
});
