import { createServer } from 'node:net';
import { expect } from 'chai';
import { systemClock, type Clock } from '../../src/observe/clock.js';
import { FrameKind, frameOf } from '../../src/transport/frame.js';
import { ManualClock } from '../support/manual-clock.js';
import {
  bulky,
  endOfTurn,
  host,
  numbered,
  numberOf,
  openSockets,
  quickLimits,
  Stage,
  until,
  type FakePeer,
  type TestNode,
} from './stage.js';

const KiB = 1024;
const MiB = 1024 * 1024;

describe('the transport over TCP', () => {
  let stage = new Stage();
  beforeEach(() => {
    stage = new Stage();
  });
  afterEach(() => stage.close());

  /** Node 1, connected to a peer that does as told. */
  async function withFakePeer(
    options: Parameters<Stage['node']>[1] = {},
  ): Promise<readonly [TestNode, FakePeer]> {
    const fake = await stage.fakePeer();
    const node = await stage.node(1, { ...options, peers: { 2: fake.port } });
    await until('it is connected', () => node.isConnected(2));
    return [node, fake];
  }

  describe('messages', () => {
    it('of 64 groups in one turn are one frame, in the order in which they were sent', async () => {
      const [one, two] = await stage.pair();
      for (let group = 0; group < 64; group++) one.send(2, group, numbered(1000 + group));
      await until('they are there', () => two.receiver.messages.length >= 64);
      expect(two.receiver.frames).to.have.length(1);
      const expected = Array.from({ length: 64 }, (_, group) => [group, 1000 + group]);
      const received = two.receiver.messages.map((each) => [each.group, numberOf(each)]);
      expect(received).to.deep.equal(expected);
      expect([one.figure('framesOut'), one.figure('messagesOut')]).to.deep.equal([1, 64]);
      expect([two.figure('framesIn'), two.figure('messagesIn')]).to.deep.equal([1, 64]);
    });

    it('arrive in order over many turns, one frame for each turn', async () => {
      const [one, two] = await stage.pair();
      let sent = 0;
      for (let turn = 0; turn < 300; turn++) {
        for (let n = 0; n <= turn % 5; n++) one.send(2, 1, numbered(++sent));
        await endOfTurn();
      }
      await until('they are there', () => two.receiver.messages.length >= sent);
      const received = two.receiver.messages.map(numberOf);
      expect(received).to.deep.equal(Array.from({ length: sent }, (_, n) => n + 1));
      expect(two.receiver.frames).to.have.length(300);
    });

    it('of one turn that are too many for a frame leave in several, none over the limit', async () => {
      const [one, two] = await stage.pair({ queueBytesMax: 512 * MiB });
      for (let index = 1; index <= 4; index++) one.send(2, 1, bulky(17 * MiB, index));
      await until('they are there', () => two.receiver.messages.length >= 4);
      expect(two.receiver.frames.map((frame) => frame.length)).to.deep.equal([2, 2]);
      const same = two.receiver.messages.map(({ message }, n) => {
        const [was, is] = [bulky(17 * MiB, n + 1), message].map((each) =>
          each.type === 'append' ? (each.entries[0]?.data ?? []) : [],
        );
        return Buffer.compare(Buffer.from(was ?? []), Buffer.from(is ?? [1])) === 0;
      });
      expect(same).to.deep.equal([true, true, true, true]);
    });

    it('to a node without a connection are dropped and counted', async () => {
      const node = await stage.node(1, { peers: { 2: 1 } });
      node.send(2, 1, numbered(1));
      node.send(3, 1, numbered(2));
      expect(node.figure('messagesDropped')).to.equal(2);
      expect(node.figure('framesOut')).to.equal(0);
    });

    it('to a peer that does not read wait in a queue with a limit, and are dropped beyond', async () => {
      const queueBytesMax = 2 * MiB;
      const [node, fake] = await withFakePeer({
        limits: { queueBytesMax, pingEveryMs: 1000, silenceMsMax: 60_000 },
      });
      fake.peers[0]?.socket.pause();
      const bytes = 128 * KiB;
      let queuedMost = 0;
      for (let turn = 0; turn < 250; turn++) {
        node.send(2, 1, bulky(bytes));
        await endOfTurn();
        queuedMost = Math.max(queuedMost, node.figure('queuedBytes'));
      }
      // 31 MiB were sent. The kernel takes some of them; one frame may go over the limit.
      expect(queuedMost).to.be.within(queueBytesMax, queueBytesMax + bytes + KiB);
      expect(node.figure('messagesDropped')).to.be.above(50);
      expect(node.figure('messagesDropped') + node.figure('messagesOut')).to.equal(250);
    });

    it('tell how long the way is, and how far the clocks are apart', async () => {
      const ahead: Clock = { ...systemClock, wallMs: () => Date.now() + 5000 };
      const two = await stage.node(2, { clock: ahead, peers: { 1: 1 } });
      const one = await stage.node(1, { peers: { 2: two.port } });
      const state = (): ReturnType<typeof one.transport.peers>[number] | undefined =>
        one.transport.peers()[0];
      await until('it was probed', () => state()?.clockOffsetMs !== undefined);
      expect(state()?.clockOffsetMs).to.be.within(4500, 5500);
      expect(state()?.roundTripUs).to.be.within(1, 1_000_000);
    });
  });

  describe('a peer connection that breaks', () => {
    it('comes back when the peer was restarted, and carries messages again', async () => {
      const [one, two] = await stage.pair();
      const { port } = two;
      await two.transport.close();
      await until('node 1 knows', () => one.receiver.breaks === 1);
      expect(one.isConnected(2)).to.equal(false);
      const again = await stage.node(2, { port, peers: { 1: one.port } });
      await until('both are connected', () => one.isConnected(2) && again.isConnected(1));
      one.send(2, 1, numbered(7));
      again.send(1, 1, numbered(8));
      await until(
        'both hear',
        () => one.receiver.frames.length + again.receiver.frames.length === 2,
      );
      expect(again.receiver.messages.map(numberOf)).to.deep.equal([7]);
    });

    it('is tried again after pauses that double up to a limit, and are never quite the same', async () => {
      const pauses: number[] = [];
      const clock: Clock = {
        ...systemClock,
        after: (delayMs, fire) => {
          if (delayMs !== quickLimits.handshakeMsMax) pauses.push(delayMs);
          return systemClock.after(delayMs, fire);
        },
      };
      const { port } = await closedPort();
      await stage.node(1, { clock, peers: { 2: port } });
      await until('it was tried nine times', () => pauses.length >= 9);
      const whole = [5, 10, 20, 40, 80, 80, 80, 80, 80];
      for (const [n, longest] of whole.entries()) {
        expect(pauses[n], `pause ${n}`).to.be.within(longest / 2, longest);
      }
      expect(new Set(pauses).size).to.be.above(3);
    });

    it('is dropped for a bit flipped on the way, and what arrives before and after is right', async () => {
      const two = await stage.node(2, { peers: { 1: 1 } });
      const wire = await stage.wire(() => two.port);
      const one = await stage.node(1, { peers: { 2: wire.port } });
      const sent: number[] = [];
      for (let round = 1; round <= 8; round++) {
        await until('it is connected', () => one.isConnected(2));
        // Before the damage, in its midst, and behind it, until the connection is down.
        let next = round * 100_000;
        let pieces = 0;
        wire.damage = (piece) => {
          if (++pieces !== 3) return piece;
          const damaged = Buffer.from(piece);
          // Head, checksum, kind and body have their turns.
          const at = (round * 5) % piece.byteLength;
          damaged[at] = (damaged[at] ?? 0) ^ (1 << (round % 8));
          return damaged;
        };
        const breaks = one.receiver.breaks;
        await until('the connection is dropped', () => {
          sent.push(++next);
          one.send(2, 1, numbered(next));
          return one.receiver.breaks > breaks;
        });
      }
      wire.damage = (piece) => piece;
      await until('it is connected', () => one.isConnected(2));
      one.send(2, 1, numbered(999_999));
      await until('the last one arrives', () =>
        two.receiver.messages.some((m) => numberOf(m) === 999_999),
      );
      const received = two.receiver.messages.map(numberOf);
      const known = new Set([...sent, 999_999]);
      expect(received.filter((number) => !known.has(number))).to.deep.equal([]);
      expect(received).to.deep.equal([...received].sort((a, b) => a - b));
      expect(two.figure('malformed')).to.be.above(0);
    });

    it('is noticed when it is half open: nothing comes back, and nobody says so', async () => {
      const two = await stage.node(2, { peers: { 1: 1 } });
      const wire = await stage.wire(() => two.port);
      const one = await stage.node(1, { peers: { 2: wire.port } });
      await until('it is connected', () => one.isConnected(2));
      wire.silent = true;
      const began = Date.now();
      await until('node 1 notices', () => one.receiver.breaks === 1);
      expect(Date.now() - began).to.be.within(quickLimits.silenceMsMax / 2, 5000);
      wire.silent = false;
      await until('it is connected again', () => one.isConnected(2));
      // The old socket of node 2 has no other end any more.
      one.send(2, 1, numbered(1));
      await until('messages arrive', () => two.receiver.messages.length === 1);
    });

    it('holds no socket for ever at the end that only listens', async () => {
      const node = await stage.node(1, { peers: { 2: 1 } });
      const peer = await stage.rawPeer(node.port);
      peer.hello();
      await peer.reply();
      const began = Date.now();
      await until('node 1 closes it', () => peer.closed);
      expect(Date.now() - began).to.be.within(quickLimits.silenceMsMax, 8000);
    });

    it('is not called dead because this process stood still', async () => {
      const clock = new ManualClock();
      const [node, fake] = await withFakePeer({ clock });
      await until('the first probe is answered', () => fake.peers[0]?.frames.length === 2);
      for (let stall = 1; stall <= 5; stall++) {
        clock.jump(60_000);
        await until('the probe is answered', () => fake.peers[0]?.frames.length === 2 + stall);
      }
      expect(node.receiver.breaks).to.equal(0);
      expect(fake.peers).to.have.length(1);
      // But it is, when probes are not answered, however little or much time they took.
      fake.answers = false;
      for (let probe = 0; probe <= quickLimits.silenceMsMax / quickLimits.pingEveryMs; probe++)
        clock.jump(quickLimits.pingEveryMs);
      await until('it is cut', () => node.receiver.breaks === 1);
    });

    it('is not called dead while the peer takes bytes: probes wait behind them', async () => {
      const clock = new ManualClock();
      const [node, fake] = await withFakePeer({ clock });
      fake.answers = false;
      const socket = fake.peers[0]?.socket;
      socket?.pause();
      const probes = quickLimits.silenceMsMax / quickLimits.pingEveryMs;
      const fill = async (): Promise<void> => {
        while (node.figure('queuedBytes') < MiB) {
          node.send(2, 1, bulky(256 * KiB));
          await endOfTurn();
        }
      };
      for (let probe = 0; probe < 2 * probes; probe++) {
        await fill();
        clock.jump(quickLimits.pingEveryMs);
        socket?.resume();
        await until('the peer takes some', () => node.figure('queuedBytes') === 0);
        socket?.pause();
      }
      expect(node.receiver.breaks).to.equal(0);
      await fill();
      for (let probe = 0; probe < 2 * probes; probe++) clock.jump(quickLimits.pingEveryMs);
      await until('it is cut when it takes none', () => node.receiver.breaks === 1);
    }).timeout(10_000);
  });

  describe('a transport', () => {
    it('whose port is taken names the address and the remedy', async () => {
      const taken = createServer();
      await new Promise<void>((resolve) => taken.listen(0, host, resolve));
      const address = taken.address();
      const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
      const failure = await stage.node(1, { port }).then(
        () => 'started',
        (error: unknown) => String(error),
      );
      expect(failure).to.include(`${host}:${port} is in use by another process`);
      expect(failure).to.include('choose another port with --peer-address');
      await new Promise((resolve) => taken.close(resolve));
    });

    it('lets a bug of its receiver end the process, and does not blame the peer', async () => {
      const [one, two] = await stage.pair();
      const bug = new Error('invariant broken');
      two.receiver.onFrame = () => {
        throw bug;
      };
      const caught = new Promise((resolve) => {
        const others = process.listeners('uncaughtException');
        process.removeAllListeners('uncaughtException');
        process.once('uncaughtException', (error) => {
          for (const other of others) process.on('uncaughtException', other);
          resolve(error);
        });
      });
      one.send(2, 1, numbered(1));
      expect(await caught).to.equal(bug);
      expect(two.figure('malformed')).to.equal(0);
    });

    it('that is closed leaves no socket and no attempt behind', async () => {
      const before = openSockets();
      const [one, two] = await stage.pair();
      let pending = 0;
      const clock: Clock = {
        ...systemClock,
        after: (delayMs, fire) => {
          const cancel = systemClock.after(delayMs, fire);
          pending++;
          return () => {
            pending--;
            cancel();
          };
        },
      };
      const lonely = await stage.node(3, {
        clock,
        peers: { 1: (await closedPort()).port },
        limits: { reconnectMsMin: 60_000, reconnectMsMax: 60_000 },
      });
      // The timer of the handshake is cancelled by then, and the one of the pause is set.
      await until('it pauses', () => lonely.lines.length > 0 && pending === 1);
      for (const { transport } of [one, two, lonely]) await transport.close();
      expect(pending).to.equal(0);
      await until('its sockets are gone', () => openSockets() <= before, openSockets);
      expect(one.isConnected(2)).to.equal(false);
    });

    it('closes the connection of a peer whose probes are none, or that reads no answers', async () => {
      const node = await stage.node(1, { peers: { 2: 1 } });
      const odd = await stage.rawPeer(node.port);
      odd.hello();
      odd.send(FrameKind.ping, Buffer.alloc(64 * KiB));
      await until('it is closed', () => odd.closed);
      const deaf = await stage.rawPeer(node.port);
      deaf.hello();
      await deaf.reply();
      deaf.socket.pause();
      const ping = frameOf(FrameKind.ping, Buffer.alloc(8));
      const pings = Buffer.concat(Array.from({ length: 20_000 }, () => ping));
      for (let n = 0; n < 100 && node.figure('malformed') < 2; n++) {
        deaf.socket.write(pings);
        await endOfTurn();
      }
      await until('it is closed', () => node.figure('malformed') === 2);
    });
  });
});

/** A port on which nobody listens. */
async function closedPort(): Promise<{ readonly port: number }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return { port: typeof address === 'object' ? (address?.port ?? 0) : 0 };
}
