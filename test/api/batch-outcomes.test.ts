import { expect } from 'chai';
import { BatchService } from '../../src/api/batch-service.js';
import { Deadlines } from '../../src/api/deadlines.js';
import { Dispatch, type Route, type ShardAccess } from '../../src/api/dispatch.js';
import { Forwarder } from '../../src/api/forwarder.js';
import { defaultLimits } from '../../src/api/limits.js';
import type { CallContext } from '../../src/api/unary.js';
import { systemClock } from '../../src/observe/clock.js';
import { slotOf } from '../../src/router/slot.js';
import { codecOf } from '../../proto/definitions.js';
import type { BatchRequest } from '../../proto/messages.js';

const request = codecOf<BatchRequest>('quorate.v1.BatchRequest');
const bytes = (text: string): Uint8Array => Buffer.from(text, 'utf8');
/** Nobody listens there. */
const deadAddress = '127.0.0.1:1';

/** Leads here, takes a write and says nothing more. */
const silentShard: ShardAccess = {
  isLeader: true,
  leaderNode: 1,
  write: (_, call) => {
    call.mayHaveApplied = true;
  },
  read: () => undefined,
  scan: () => undefined,
};

function serviceOf(routeOf: (slot: number) => Route, onAsked: () => void): BatchService {
  const clock = systemClock;
  const dispatch = new Dispatch({
    clock,
    forwarder: new Forwarder(clock),
    routeOf,
    slotOf,
    startOf: () => ({ home: slotOf(bytes('')), slot: () => slotOf(bytes('')) }),
    addressOf: () => {
      onAsked();
      return deadAddress;
    },
    clusterId: 'test',
    mapVersion: () => 1,
    ownerOf: () => undefined,
    onOwner: () => undefined,
    onMapVersion: () => undefined,
    diskFull: () => false,
  });
  return new BatchService({
    dispatch,
    limits: defaultLimits,
    clock,
    deadlines: new Deadlines(clock),
  });
}

describe('the outcome of a batch over several shards', () => {
  it('D04: a share that surely had no effect makes no promise for one that may have had', async () => {
    const remote = { bestNode: 2, learn: () => undefined, avoid: () => undefined };
    let attempts = 0;
    const service = serviceOf(
      (slot) =>
        slot === slotOf(bytes('here'))
          ? { kind: 'local', shard: silentShard }
          : { kind: 'remote', shard: remote },
      () => {
        attempts += 1;
      },
    );
    const call: CallContext = {
      deadlineMs: systemClock.monotonicMs() + 60_000,
      forwarded: false,
      ended: false,
      mayHaveApplied: false,
    };
    const put = (key: string): object => ({ put: { key: bytes(key), value: bytes('v') } });
    const batch = request.encode({ operations: [put('here'), put('elsewhere')] });
    service.unary(batch, call, () => undefined);
    const deadline = Date.now() + 20_000;
    // The dead leader refused, again and again: between two attempts the deadline may pass.
    while (attempts < 3 && Date.now() < deadline) {
      expect(call.mayHaveApplied, 'the put here may have been applied').to.equal(true);
      await new Promise<void>((resolve) => {
        setImmediate(resolve);
      });
    }
    expect(attempts).to.be.at.least(3);
    Object.assign(call, { ended: true });
  });
});
