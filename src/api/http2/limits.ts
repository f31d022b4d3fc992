/** What a peer may make a connection hold and do. */
import type { Clock } from '../../observe/clock.js';

export interface Http2Limits {
  /** Streams in progress; those beyond are refused. */
  readonly streamsMax: number;
  /** Bytes of bodies and frames that wait for a peer that does not read. */
  readonly unreadBytesMax: number;
  /** Bytes of request bodies on their way, of a stream and of all of a connection. */
  readonly streamWindowBytes: number;
  readonly connectionWindowBytes: number;
  /** Of the fields of one request, decoded (SETTINGS_MAX_HEADER_LIST_SIZE). */
  readonly headerListBytesMax: number;
  /** Of a block on the wire, with all its CONTINUATION frames, and how many of these. */
  readonly headerBlockBytesMax: number;
  readonly continuationsMax: number;
  /** Frames of control (acknowledgements, resets) that wait for a peer that does not read. */
  readonly controlFramesMax: number;
  /** Streams that the peer, or a mistake of the peer, ends before their answer. */
  readonly resets: Rate;
  /** Frames that bring nothing: empty DATA, PRIORITY, unknown types; and SETTINGS, which touch all streams. */
  readonly idleFrames: Rate;
  /** Until a new connection has sent its preface, ms. */
  readonly prefaceMsMax: number;
  /** Between a GOAWAY with an error and the end of the connection, ms: time to read it. */
  readonly lingerMs: number;
}

/** So many at once, and so many more each second. */
export interface Rate {
  readonly burst: number;
  readonly perSecond: number;
}

export const defaultHttp2Limits: Http2Limits = {
  streamsMax: 1024,
  unreadBytesMax: 32 * 1024 * 1024,
  streamWindowBytes: 1024 * 1024,
  connectionWindowBytes: 8 * 1024 * 1024,
  headerListBytesMax: 32 * 1024,
  headerBlockBytesMax: 64 * 1024,
  continuationsMax: 16,
  controlFramesMax: 1000,
  // As nghttp2 has them: all calls of a connection may be cancelled at once, but not again and again.
  resets: { burst: 1024, perSecond: 33 },
  idleFrames: { burst: 1000, perSecond: 100 },
  prefaceMsMax: 10_000,
  lingerMs: 250,
};

/** For whoever has used `resets` up. */
export function tooManyResets({ burst, perSecond }: Rate): string {
  return (
    `too many calls given up: the limit of a connection is ${burst} at once and ${perSecond} more each second; ` +
    'use longer deadlines, or more connections'
  );
}

/** How much of a rate is left. */
export class Allowance {
  private readonly rate: Rate;
  private readonly clock: Clock;
  private left: number;
  private countedMs: number;

  constructor(rate: Rate, clock: Clock) {
    this.rate = rate;
    this.clock = clock;
    this.left = rate.burst;
    this.countedMs = clock.monotonicMs();
  }

  /** False when the peer has used up what it may. */
  take(): boolean {
    const now = this.clock.monotonicMs();
    const earned = ((now - this.countedMs) / 1000) * this.rate.perSecond;
    this.left = Math.min(this.rate.burst, this.left + earned) - 1;
    this.countedMs = now;
    return this.left >= 0;
  }
}
