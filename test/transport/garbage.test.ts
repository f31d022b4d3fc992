import { once } from 'node:events';
import { connect } from 'node:net';
import { expect } from 'chai';
import { FrameKind, frameOf } from '../../src/transport/frame.js';
import { SimRandom } from '../sim/random.js';
import { host, numbered, openSockets, Stage, until, type TestNode } from './stage.js';

const MiB = 1024 * 1024;

describe('garbage on the peer port', () => {
  let stage = new Stage();
  beforeEach(() => {
    stage = new Stage();
  });
  afterEach(() => stage.close());

  async function expectStillServing(one: TestNode, two: TestNode): Promise<void> {
    const before = two.receiver.frames.length;
    await until('it is connected', () => one.isConnected(2));
    one.send(2, 1, numbered(1));
    await until('a message arrives', () => two.receiver.frames.length > before);
  }

  it('of 10,000 connections neither stops the node nor leaks a socket', async () => {
    const random = new SimRandom(20_261_121);
    const [one, two] = await stage.pair({ handshakeMsMax: 300 });
    const before = openSockets();
    const visit = async (): Promise<void> => {
      const socket = connect({ host, port: two.port });
      socket.on('error', () => undefined);
      const bytes = Buffer.from(
        Array.from({ length: random.integer(0, 59) }, () => random.integer(0, 255)),
      );
      // A few say nothing, a few go at once, and the others say something.
      if (random.integer(0, 9) === 0) socket.once('connect', () => socket.destroy());
      else if (random.integer(0, 99) > 0) socket.end(bytes);
      socket.resume();
      await once(socket, 'close');
    };
    let left = 10_000;
    const visitor = async (): Promise<void> => {
      while (left-- > 0) await visit();
    };
    await Promise.all(Array.from({ length: 100 }, visitor));
    await until('all sockets are gone', () => openSockets() <= before, openSockets);
    await expectStillServing(one, two);
    expect(one.receiver.breaks + two.receiver.breaks).to.equal(0);
  });

  it('that claims to be a huge frame is refused before it is gathered', async () => {
    const node = await stage.node(1, { peers: { 2: 1 } });
    const peer = await stage.rawPeer(node.port);
    const head = Buffer.alloc(8);
    head.writeUInt32BE(300 * MiB);
    peer.socket.write(head);
    await until('it is closed', () => peer.closed);
    expect(node.figure('malformed')).to.equal(1);
    expect(node.figure('bytesIn')).to.equal(8);
  });

  it('of strangers who say nothing takes 256 sockets at most, and peers still get in', async () => {
    const two = await stage.node(2, { peers: { 1: 1 }, limits: { handshakeMsMax: 60_000 } });
    const strangers = await Promise.all(Array.from({ length: 400 }, () => stage.rawPeer(two.port)));
    const open = (): number => strangers.filter(({ closed }) => !closed).length;
    await until('the oldest are closed', () => open() === 256, open);
    expect(strangers.slice(0, 144).every(({ closed }) => closed)).to.equal(true);
    const one = await stage.node(1, { peers: { 2: two.port } });
    await expectStillServing(one, two);
    // Who has said who it is, is no stranger: more of them do not push it out.
    const others = await Promise.all(Array.from({ length: 300 }, () => stage.rawPeer(two.port)));
    await until('the oldest are closed', () => others.filter((each) => each.closed).length === 44);
    await expectStillServing(one, two);
    expect(one.receiver.breaks).to.equal(0);
  });

  it('in whole frames of a known peer closes its connection, or is dropped, and no more', async () => {
    const seed = 4711;
    const random = new SimRandom(seed);
    const node = await stage.node(1, { peers: { 2: 1 } });
    for (let visit = 0; visit < 200; visit++) {
      const peer = await stage.rawPeer(node.port);
      const purpose = visit % 2 === 0 ? 'raft' : 'snapshot';
      peer.hello({ purpose });
      for (let n = 0; n < 5; n++) {
        const kind = random.integer(0, 8) as FrameKind;
        const body = Array.from({ length: random.integer(0, 79) }, () => random.integer(0, 255));
        // Every other one gets past the version, to a type.
        if (n % 2 === 0) body.splice(0, 2, 1, random.integer(0, 13));
        peer.socket.write(frameOf(kind, Buffer.from(body)));
      }
      peer.send(FrameKind.hello);
      await until(`it is closed (seed ${seed}, visit ${visit})`, () => peer.closed);
    }
    expect(node.figure('malformed')).to.equal(200);
  });
});
