import { expect } from 'chai';
import { ErrorCode, Flag, FrameType, Setting } from '../../../src/api/http2/frames.js';
import { HpackDecoder } from '../../../src/api/http2/hpack-decoder.js';
import {
  data,
  echoServer,
  frame,
  headers,
  hello,
  RawPeer,
  settings,
  u32,
  WHOLE,
  type EchoServer,
} from './raw-peer.js';

const { WINDOW_UPDATE, HEADERS, CONTINUATION, DATA, SETTINGS } = FrameType;
const grant = (streamId: number, bytes: number): Buffer =>
  frame(WINDOW_UPDATE, 0, streamId, u32(bytes));
const window = (bytes: number): Buffer => settings([Setting.INITIAL_WINDOW_SIZE, bytes]);
const opened = (streamId: number, path = '/echo'): Buffer => headers(streamId, path, WHOLE);

describe('HTTP/2 by hand, flow control', () => {
  let server: EchoServer;
  let peer: RawPeer;
  beforeEach(async () => {
    server = await echoServer({ streamWindowBytes: 65_535, connectionWindowBytes: 100_000 });
    peer = await RawPeer.connect(server.port, hello);
  });
  afterEach(() => {
    peer.close();
    server.close();
  });

  /** Everything that the server does at once is done when it has acknowledged this. */
  async function settle(): Promise<void> {
    const before = peer.of(FrameType.PING).length;
    peer.send(frame(FrameType.PING, 0, 0, Buffer.alloc(8)));
    await peer.until('settled', () => peer.of(FrameType.PING).length > before);
  }

  it('sends what the window of the stream allows, and the rest as it grows', async () => {
    peer.send(window(10), headers(1, '/size/25'));
    await peer.until('10 bytes', () => peer.bodyOf(1).length === 10);
    await settle();
    expect(peer.bodyOf(1).length).to.equal(10);
    peer.send(grant(1, 1));
    await peer.until('11 bytes', () => peer.bodyOf(1).length === 11);
    peer.send(grant(1, 1000));
    await peer.until('the end', () => peer.isAnswered(1));
    expect(peer.bodyOf(1).length).to.equal(25);
  });

  it('sends what the window of the connection allows, in fair parts', async () => {
    peer.send(window(1_000_000), headers(1, '/size/200000'), headers(3, '/size/200000'));
    const sum = (): number => peer.bodyOf(1).length + peer.bodyOf(3).length;
    await peer.until('all that is allowed', () => sum() === 65_535);
    await settle();
    expect(sum()).to.equal(65_535);
    peer.send(grant(0, 200_000));
    await peer.until('more', () => sum() === 265_535);
    expect(peer.bodyOf(1).length).to.be.greaterThan(60_000);
    expect(peer.bodyOf(3).length).to.be.greaterThan(60_000);
    peer.send(grant(0, 200_000));
    await peer.until('the end', () => peer.isAnswered(1) && peer.isAnswered(3));
    expect(sum()).to.equal(400_000);
  });

  it('waits with a window below 0 that the client has lowered meanwhile', async () => {
    peer.send(window(100), headers(1, '/size/300'));
    await peer.until('100 bytes', () => peer.bodyOf(1).length === 100);
    peer.send(window(50), grant(1, 50));
    await settle();
    expect(peer.bodyOf(1).length).to.equal(100);
    peer.send(grant(1, 10));
    await peer.until('10 more', () => peer.bodyOf(1).length === 110);
    peer.send(window(500));
    await peer.until('the end', () => peer.isAnswered(1));
    expect(peer.bodyOf(1).length).to.equal(300);
  });

  it('takes the last of two windows in one frame', async () => {
    peer.send(settings([Setting.INITIAL_WINDOW_SIZE, 100], [Setting.INITIAL_WINDOW_SIZE, 2]));
    peer.send(headers(1, '/size/10'));
    await peer.until('2 bytes', () => peer.bodyOf(1).length === 2);
    await settle();
    expect(peer.bodyOf(1).length).to.equal(2);
  });

  it('answers without a body whatever the windows are', async () => {
    peer.send(window(0), headers(1, '/size/0'));
    await peer.until('answered', () => peer.isAnswered(1));
  });

  it('answers one stream while another waits for its window', async () => {
    peer.send(window(0), headers(1, '/size/100'), headers(3, '/size/100'), grant(3, 100));
    await peer.until('the second', () => peer.isAnswered(3));
    expect(peer.isAnswered(1)).to.equal(false);
  });

  it('answers a short request before long ones that came first have had all of their turns', async () => {
    const long = [1, 3, 5, 7, 9, 11, 13];
    peer.send(
      window(10_000_000),
      grant(0, 10_000_000),
      ...long.map((streamId) => headers(streamId, '/size/1000000')),
      headers(15, '/size/10'),
    );
    await peer.until('all', () => [...long, 15].every((streamId) => peer.isAnswered(streamId)));
    const end = peer.frames.findIndex(
      ({ type, streamId, flags }) => streamId === 15 && type === HEADERS && (flags & 1) !== 0,
    );
    const before = peer.frames.slice(0, end);
    for (const streamId of long) {
      const sent = before.filter((each) => each.streamId === streamId && each.type === DATA);
      expect(sent.reduce((sum, { payload }) => sum + payload.length, 0)).to.be.below(300_000);
    }
  });

  it('cuts frames and header blocks to 16384 bytes', async () => {
    peer.send(headers(1, '/head/40000'), headers(3, '/size/40000'));
    await peer.until('both', () => peer.isAnswered(1) && peer.isAnswered(3));
    for (const { payload } of peer.frames) expect(payload.length).to.be.at.most(16_384);
    const at = peer.frames.findIndex(({ type, streamId }) => type === HEADERS && streamId === 1);
    const parts = peer.frames.slice(at, at + 3);
    expect(parts.map(({ type }) => type)).to.deep.equal([HEADERS, CONTINUATION, CONTINUATION]);
    expect(parts.map(({ flags }) => flags & Flag.END_HEADERS)).to.deep.equal([0, 0, WHOLE]);
    const block = Buffer.concat(parts.map(({ payload }) => payload));
    const decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 100_000 });
    expect(decoder.decode(block)?.at(-1)?.value.length).to.equal(40_000);
  });

  it('gives room anew as bodies are consumed, to streams and to the connection', async () => {
    const piece = Buffer.alloc(16_384, 'p');
    peer.send(window(1_000_000), grant(0, 1_000_000), opened(1));
    let room = 65_535;
    for (let sent = 0; sent < 30; sent++) {
      await peer.until('room', () => {
        const granted = (streamId: number): number =>
          peer
            .of(WINDOW_UPDATE, streamId)
            .reduce((sum, each) => sum + each.payload.readUInt32BE(0), 0);
        room = Math.min(65_535 + granted(1), 65_535 + granted(0)) - sent * piece.length;
        return room >= piece.length;
      });
      peer.send(data(1, piece, sent === 29 ? 1 : 0));
    }
    await peer.until('echoed', () => peer.isAnswered(1));
    expect(peer.bodyOf(1).length).to.equal(30 * piece.length);
  });

  it('gives no room for what is not consumed, and ends a stream that goes beyond', async () => {
    peer.send(opened(1, '/hoard'));
    for (let sent = 0; sent < 4; sent++) peer.send(data(1, Buffer.alloc(16_383), 0));
    await settle();
    expect(peer.of(WINDOW_UPDATE, 1)).to.deep.equal([]);
    peer.send(data(1, Buffer.alloc(4), 0));
    await peer.until('reset', () => peer.resetOf(1) !== undefined);
    expect(peer.resetOf(1)).to.equal(ErrorCode.FLOW_CONTROL_ERROR);
    expect(server.service.gone).to.deep.equal([[1, ErrorCode.FLOW_CONTROL_ERROR]]);
    expect(peer.goaway).to.equal(undefined);
  });

  it('ends a connection whose streams go beyond its window together', async () => {
    for (const streamId of [1, 3]) {
      peer.send(opened(streamId, '/hoard'));
      for (let sent = 0; sent < 3; sent++) peer.send(data(streamId, Buffer.alloc(16_384), 0));
    }
    await settle();
    peer.send(data(3, Buffer.alloc(2000), 0));
    await peer.until('closed', () => peer.closed);
    expect(peer.goaway?.code).to.equal(ErrorCode.FLOW_CONTROL_ERROR);
  });

  for (const over of [false, true]) {
    it(`gives the room of ${over ? 'what comes on a stream that is over' : 'padding'} to others`, async () => {
      const padded = Buffer.concat([Buffer.of(255), Buffer.alloc(255)]);
      peer.send(headers(1, over ? '/early' : '/hoard', WHOLE));
      if (over) await peer.until('over', () => peer.resetOf(1) === ErrorCode.NO_ERROR);
      for (let sent = 0; sent < 300; sent++) peer.send(data(1, padded, Flag.PADDED));
      await settle();
      // Behind the first, which makes the window as large as it is.
      const [, second] = peer.of(WINDOW_UPDATE, 0);
      expect(second?.payload.readUInt32BE(0)).to.be.at.least(50_000);
      expect(peer.goaway).to.equal(undefined);
    });
  }

  it('says in one write what one turn has to say', async () => {
    let writes = 0;
    peer.socket.on('data', () => (writes += 1));
    const requests = Array.from({ length: 50 }, (_, n) => headers(2 * n + 1, '/size/20'));
    peer.send(...requests);
    await peer.until('all', () => peer.isAnswered(99));
    // The requests come in one piece or two; SETTINGS and its acknowledgement may have a write of their own.
    expect(writes).to.be.at.most(6);
    expect(peer.of(DATA).length).to.equal(50);
    expect(peer.of(SETTINGS).length).to.equal(2);
  });
});
