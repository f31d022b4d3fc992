import { createServer, type Http2Server } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import { Dispatch, type OwnerHint } from '../../src/api/dispatch.js';
import { Forwarder } from '../../src/api/forwarder.js';
import { statusTrailers } from '../../src/api/status.js';
import { KvError, type KvErrorFields } from '../../src/errors.js';
import { systemClock } from '../../src/observe/clock.js';
import { anySlot, slotOf, type Slot } from '../../src/router/slot.js';

const key = Buffer.from('k');
const home = slotOf(key);
const pin = anySlot(16_390);

const elsewhere: KvErrorFields = {
  code: 'KV_WRONG_SHARD',
  outcome: 'notApplied',
  leaderNode: 3,
  leaderAddress: 'node-3:7400',
  mapVersion: 7,
  shardId: 2,
  slotEpoch: 5,
  retryAfterMs: 20,
  limit: 8,
  size: 9,
};

/** A node that refuses whatever it is asked. */
function refusing(error: KvError): Promise<Http2Server> {
  const server = createServer();
  const { code, message, details } = statusTrailers(error);
  server.on('stream', (stream) => {
    stream.resume();
    stream.respond(
      {
        'content-type': 'application/grpc+proto',
        'grpc-status': String(code),
        'grpc-message': encodeURIComponent(message),
        'grpc-status-details-bin': Buffer.from(details).toString('base64'),
      },
      { endStream: true },
    );
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      resolve(server);
    });
  });
}

/** What becomes of a read that is passed on, and what this node learns from its error. */
async function passedOn(
  fields: KvErrorFields,
): Promise<{ error: KvError | undefined; learned: Map<Slot, Omit<OwnerHint, 'node'>> }> {
  const server = await refusing(new KvError('not here', fields));
  const forwarder = new Forwarder(systemClock);
  const learned = new Map<Slot, Omit<OwnerHint, 'node'>>();
  const place = { home, slot: () => home };
  const { port } = server.address() as AddressInfo;
  const dispatch = new Dispatch({
    clock: systemClock,
    forwarder,
    routeOf: () => ({
      kind: 'remote',
      shard: { bestNode: 2, learn: () => undefined, avoid: () => undefined },
    }),
    slotOf,
    startOf: () => place,
    addressOf: () => `127.0.0.1:${port}`,
    clusterId: 'test',
    mapVersion: () => 1,
    ownerOf: () => undefined,
    onOwner: (slot, owner) => learned.set(slot, owner),
    onMapVersion: () => undefined,
    diskFull: () => false,
  });
  const error = await new Promise<KvError | undefined>((resolve) => {
    dispatch.read(
      {
        place,
        keys: [key],
        level: { kind: 'linearizable' },
        // One attempt: what is over is not asked for again.
        call: {
          deadlineMs: systemClock.monotonicMs() + 60_000,
          forwarded: false,
          ended: true,
          mayHaveApplied: false,
        },
        redirect: false,
        path: '/quorate.v1.KV/Get',
        request: () => new Uint8Array(),
      },
      resolve,
    );
  });
  forwarder.close();
  await new Promise((resolve) => server.close(resolve));
  return { error, learned };
}

describe('the error of a request that was passed on', () => {
  it('D31: teaches the owner of the pin that it names, and nothing of the hash slot', async () => {
    const { error, learned } = await passedOn({ ...elsewhere, pinSlot: pin });
    expect([...learned]).to.deep.equal([[pin, { shard: 2, epoch: 5 }]]);
    expect(error?.fields).to.deep.include({ ...elsewhere, pinSlot: pin });
  });

  it('D31: that names no pin teaches the owner of the hash slot, and is passed on as it came', async () => {
    const { error, learned } = await passedOn(elsewhere);
    expect([...learned]).to.deep.equal([[home, { shard: 2, epoch: 5 }]]);
    expect(error?.fields).to.deep.include(elsewhere);
    expect(error?.fields).to.not.have.property('pinSlot');
  });

  it('D31: without a hint is explained by what this node knows of the slot of the key', () => {
    const known = new Map<Slot, OwnerHint>([
      [home, { shard: 4, epoch: 1, node: undefined }],
      [anySlot(0), { shard: 9, epoch: 9, node: undefined }],
    ]);
    const dispatch = new Dispatch({
      clock: systemClock,
      forwarder: { forward: () => undefined },
      routeOf: () => ({ kind: 'none', error: new KvError('', elsewhere) }),
      slotOf,
      startOf: () => ({ home, slot: () => home }),
      addressOf: () => undefined,
      clusterId: 'test',
      mapVersion: () => 1,
      ownerOf: (slot) => known.get(slot),
      onOwner: () => undefined,
      onMapVersion: () => undefined,
      diskFull: () => false,
    });
    const bare = { code: 'KV_UNAVAILABLE', outcome: 'notApplied', pinSlot: 0 } as const;
    const { fields } = dispatch.explain(new KvError('', bare), { home, slot: () => home });
    expect(fields).to.include({ shardId: 4, slotEpoch: 1 });
  });
});
