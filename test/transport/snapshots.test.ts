import { expect } from 'chai';
import { groupId, replicaId, type SnapshotMeta } from '../../raft/index.js';
import { ByteWriter } from '../../src/bytes.js';
import { FrameKind } from '../../src/transport/frame.js';
import { encodeSnapshotMeta } from '../../src/transport/message-codec.js';
import {
  SnapshotInterrupted,
  type IncomingSnapshot,
  type SnapshotHeader,
} from '../../src/transport/transport.js';
import {
  directoryOf,
  endOfTurn,
  host,
  openSockets,
  Stage,
  until,
  type TestNode,
  type Wire,
} from './stage.js';

const KiB = 1024;
const MiB = 1024 * 1024;
const chunkBytes = 256 * KiB;

const empty = {
  incoming: [],
  outgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
  members: [],
};
const snapshot: SnapshotMeta = { index: 9, term: 2, membership: { index: 0, membership: empty } };
const header: SnapshotHeader = {
  group: groupId(5),
  generation: 4,
  from: replicaId(1),
  to: replicaId(2),
  term: 3,
  snapshot,
};

/** Chunks made as they are pulled; each is full of its own number. */
class Source implements AsyncIterable<Uint8Array> {
  pulled = 0;
  private readonly count: number;

  constructor(count: number) {
    this.count = count;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (let n = 0; n < this.count; n++) {
      this.pulled++;
      yield await Promise.resolve(Buffer.alloc(chunkBytes, n));
    }
  }
}

/** Takes all chunks; `wrong` counts those that are not the ones that were sent. */
class Taker {
  taken = 0;
  wrong = 0;
  failure: unknown;

  async take(incoming: IncomingSnapshot): Promise<void> {
    try {
      for await (const chunk of incoming.chunks) {
        if (!Buffer.alloc(chunkBytes, this.taken).equals(chunk)) this.wrong++;
        this.taken++;
      }
    } catch (error) {
      this.failure = error;
    }
  }
}

describe('a snapshot over TCP', () => {
  let stage = new Stage();
  beforeEach(() => {
    stage = new Stage();
  });
  afterEach(() => stage.close());

  /** Node 1, a wire, and node 2 behind it. */
  async function wired(): Promise<readonly [TestNode, TestNode, Wire]> {
    const two = await stage.node(2, { peers: { 1: 1 } });
    const wire = await stage.wire(() => two.port);
    const one = await stage.node(1, { peers: { 2: wire.port } });
    return [one, two, wire];
  }

  async function arrival(node: TestNode, count = 1): Promise<IncomingSnapshot> {
    await until('the snapshot comes in', () => node.receiver.snapshots.length >= count);
    const incoming = node.receiver.snapshots[count - 1];
    if (incoming === undefined) throw new Error('no snapshot');
    return incoming;
  }

  it('arrives with its header and all its bytes, and its sender hears the verdict', async () => {
    const [one, two] = await stage.pair();
    const sending = one.transport.sendSnapshot(two.id, header, new Source(20));
    const incoming = await arrival(two);
    expect(incoming.header).to.deep.equal(header);
    expect(incoming.node).to.equal(1);
    const taker = new Taker();
    await taker.take(incoming);
    expect([taker.taken, taker.wrong]).to.deep.equal([20, 0]);
    incoming.finish({ ok: true });
    expect(await sending).to.deep.equal({ ok: true, reason: '' });
  });

  it('goes on behind an empty chunk, which does not mean the end', async () => {
    const [one, two] = await stage.pair();
    const taken: number[] = [];
    async function* chunks(): AsyncGenerator<Uint8Array> {
      for (const chunk of [[], [1], []]) yield await Promise.resolve(Buffer.from(chunk));
      await until('what came before was taken', () => taken.length === 1);
      for (let turn = 0; turn < 50; turn++) await endOfTurn();
      yield Buffer.from([2]);
    }
    const sending = one.transport.sendSnapshot(two.id, header, chunks());
    const incoming = await arrival(two);
    for await (const chunk of incoming.chunks) taken.push(...chunk);
    incoming.finish({ ok: true });
    expect(taken).to.deep.equal([1, 2]);
    expect(await sending).to.include({ ok: true });
  });

  it('of 50 MiB is read no further than its slow receiver takes it', async () => {
    const [one, two] = await stage.pair({ snapshotStallMsMax: 20_000 });
    const source = new Source((50 * MiB) / chunkBytes);
    const sending = one.transport.sendSnapshot(two.id, header, source);
    const incoming = await arrival(two);
    // The receiver takes nothing until the sender stands still.
    let [before, unchanged] = [-1, 0];
    await until('the sender stands still', () => {
      unchanged = source.pulled === before ? unchanged + 1 : 0;
      before = source.pulled;
      return unchanged > 50;
    });
    // 2 MiB wait here, one chunk there, and a few MiB in the kernel's buffers of both sockets.
    expect(source.pulled * chunkBytes).to.be.within(2 * MiB, 24 * MiB);
    const taker = new Taker();
    await taker.take(incoming);
    incoming.finish({ ok: true });
    expect(await sending).to.include({ ok: true });
    expect([taker.taken, taker.wrong]).to.deep.equal([200, 0]);
  });

  it('cut in the middle fails at both ends', async () => {
    const [one, two, wire] = await wired();
    const sending = one.transport.sendSnapshot(two.id, header, new Source(400));
    const taker = new Taker();
    const taking = taker.take(await arrival(two));
    await until('some of it is there', () => taker.taken > 10);
    wire.cut();
    expect(await sending).to.include({ ok: false });
    await taking;
    expect(taker.failure).to.be.instanceOf(SnapshotInterrupted);
    expect(taker.taken).to.be.below(400);
    expect(taker.wrong).to.equal(0);
  });

  it('with a bit flipped on the way fails at both ends, and no wrong byte is given out', async () => {
    const [one, two, wire] = await wired();
    const sending = one.transport.sendSnapshot(two.id, header, new Source(400));
    const taker = new Taker();
    const taking = taker.take(await arrival(two));
    await until('some of it is there', () => taker.taken > 10);
    wire.damage = (piece) => {
      const damaged = Buffer.from(piece);
      const at = damaged.byteLength >> 1;
      damaged[at] = (damaged[at] ?? 0) ^ 1;
      return damaged;
    };
    expect(await sending).to.include({ ok: false });
    await taking;
    expect(taker.failure).to.be.instanceOf(SnapshotInterrupted);
    expect(taker.wrong).to.equal(0);
    // The Raft connection runs over the same wire.
    expect(two.figure('malformed')).to.be.within(1, 5);
  });

  it('whose other end is gone without a word fails at both ends', async () => {
    const [one, two, wire] = await wired();
    const sending = one.transport.sendSnapshot(two.id, header, new Source(400));
    const taker = new Taker();
    const taking = taker.take(await arrival(two));
    await until('some of it is there', () => taker.taken > 10);
    wire.silent = true;
    await taking;
    expect(taker.failure).to.be.instanceOf(SnapshotInterrupted);
    const { ok, reason } = await sending;
    expect(ok).to.equal(false);
    expect(reason).to.include('nothing moved for 600 ms');
  });

  it('may take longer than the limit of silence to install, when all of it is there', async () => {
    const node = await stage.node(1, { peers: { 2: 1 } });
    const peer = await stage.rawPeer(node.port);
    peer.hello({ purpose: 'snapshot' });
    peer.send(FrameKind.snapshotHead, headBytes());
    peer.send(FrameKind.snapshotChunk, Buffer.alloc(chunkBytes));
    peer.send(FrameKind.snapshotChunk);
    const incoming = await arrival(node);
    const taker = new Taker();
    await taker.take(incoming);
    const began = Date.now();
    await until('twice the limit has passed', () => Date.now() - began > 1200 || peer.closed);
    incoming.finish({ ok: true });
    await until('the verdict is there', () => peer.frames.length === 2 || peer.closed);
    expect(peer.frames.map(({ kind }) => kind)).to.deep.equal([FrameKind.hello, FrameKind.verdict]);
  });

  it('that nobody wants is refused at once, in its midst too, and leaves no socket behind', async () => {
    const [one, two] = await stage.pair({ snapshotStallMsMax: 60_000 });
    const before = openSockets();
    const source = new Source(400);
    const sending = one.transport.sendSnapshot(two.id, header, source);
    const incoming = await arrival(two);
    // So many chunks wait by now that the socket is not read any more.
    let [last, unchanged] = [-1, 0];
    await until('the sender stands still', () => {
      unchanged = source.pulled === last ? unchanged + 1 : 0;
      last = source.pulled;
      return unchanged > 20;
    });
    incoming.finish({ ok: false, reason: 'not wanted' });
    expect(await sending).to.deep.equal({ ok: false, reason: 'not wanted' });
    expect(source.pulled).to.be.below(400);
    await until('its sockets are gone', () => openSockets() <= before, openSockets);
  });

  it('beyond four at once is refused, and welcome when one of them has ended', async () => {
    const [one, two] = await stage.pair();
    const sendings = [1, 2, 3, 4].map(() =>
      one.transport.sendSnapshot(two.id, header, new Source(2)),
    );
    await arrival(two, 4);
    const fifth = await one.transport.sendSnapshot(two.id, header, new Source(2));
    expect(fifth.ok).to.equal(false);
    expect(fifth.reason).to.include('too many snapshots');
    for (const incoming of two.receiver.snapshots) {
      await new Taker().take(incoming);
      incoming.finish({ ok: true });
    }
    for (const { ok } of await Promise.all(sendings)) expect(ok).to.equal(true);
    const sixth = one.transport.sendSnapshot(two.id, header, new Source(2));
    (await arrival(two, 5)).finish({ ok: false, reason: 'no need' });
    expect(await sixth).to.deep.equal({ ok: false, reason: 'no need' });
  });

  it('ends with either node: the other one hears of it', async () => {
    const [one, two] = await stage.pair();
    const toTwo = one.transport.sendSnapshot(two.id, header, new Source(400));
    await arrival(two);
    await two.transport.close();
    expect(await toTwo).to.include({ ok: false });
    const three = await stage.node(3, { peers: { 1: 1 } });
    one.addresses.set(three.id, { host, port: three.port });
    const toThree = one.transport.sendSnapshot(three.id, header, new Source(400));
    const taker = new Taker();
    const taking = taker.take(await arrival(three));
    await one.transport.close();
    expect(await toThree).to.include({ ok: false });
    await taking;
    expect(taker.failure).to.be.instanceOf(SnapshotInterrupted);
  });

  it('is refused by, and not sent to, a node that is not who it should be, and not even read', async () => {
    const one = await stage.node(1, { peers: { 2: 1, 3: 1 } });
    const three = await stage.node(3, { peers: { 1: 1 } });
    const [toTwo] = [...one.addresses.keys()];
    if (toTwo === undefined) throw new Error('no address');
    one.addresses.set(toTwo, { host, port: three.port });
    const source = new Source(3);
    const wrongNode = await one.transport.sendSnapshot(toTwo, header, source);
    expect(wrongNode.ok).to.equal(false);
    expect(wrongNode.reason).to.include('OTHER_NODE');
    const fake = await stage.fakePeer();
    one.addresses.set(toTwo, { host, port: fake.port });
    // R24: the directory of node 2 was another one when it was met first.
    one.registry.remember(2, directoryOf(2));
    fake.reply = { directoryId: directoryOf(22) };
    const wiped = await one.transport.sendSnapshot(toTwo, header, source);
    expect(wiped.reason).to.include('OTHER_DIRECTORY');
    fake.reply = { nodeId: 3 };
    const other = await one.transport.sendSnapshot(toTwo, header, source);
    expect(other.reason).to.include('OTHER_NODE');
    expect(source.pulled).to.equal(0);
  });
});

function headBytes(): Buffer {
  const writer = new ByteWriter();
  const { group, generation, from, to } = header;
  writer.u32(group);
  writer.u64(generation);
  for (const id of [from, to]) writer.u32(id);
  writer.u64(header.term);
  encodeSnapshotMeta(writer, header.snapshot);
  return writer.take();
}
