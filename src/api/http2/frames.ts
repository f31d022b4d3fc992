/**
 * HTTP/2 frames (RFC 9113, section 4 and 6) as bytes: numbers of the protocol, and the frames that a
 * server of this folder sends.
 */
export const FrameType = {
  DATA: 0x0,
  HEADERS: 0x1,
  PRIORITY: 0x2,
  RST_STREAM: 0x3,
  SETTINGS: 0x4,
  PUSH_PROMISE: 0x5,
  PING: 0x6,
  GOAWAY: 0x7,
  WINDOW_UPDATE: 0x8,
  CONTINUATION: 0x9,
} as const;

export const Flag = {
  ACK: 0x1,
  END_STREAM: 0x1,
  END_HEADERS: 0x4,
  PADDED: 0x8,
  PRIORITY: 0x20,
} as const;

export const ErrorCode = {
  NO_ERROR: 0x0,
  PROTOCOL_ERROR: 0x1,
  INTERNAL_ERROR: 0x2,
  FLOW_CONTROL_ERROR: 0x3,
  SETTINGS_TIMEOUT: 0x4,
  STREAM_CLOSED: 0x5,
  FRAME_SIZE_ERROR: 0x6,
  REFUSED_STREAM: 0x7,
  CANCEL: 0x8,
  COMPRESSION_ERROR: 0x9,
  CONNECT_ERROR: 0xa,
  ENHANCE_YOUR_CALM: 0xb,
} as const;

export const Setting = {
  HEADER_TABLE_SIZE: 0x1,
  ENABLE_PUSH: 0x2,
  MAX_CONCURRENT_STREAMS: 0x3,
  INITIAL_WINDOW_SIZE: 0x4,
  MAX_FRAME_SIZE: 0x5,
  MAX_HEADER_LIST_SIZE: 0x6,
} as const;

export const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
export const headBytes = 9;
export const settingBytes = 6;
/** Before any SETTINGS; also what this server takes and sends at most. */
export const frameBytesMax = 16_384;
/** Of a stream and of the connection, before any SETTINGS or WINDOW_UPDATE. */
export const windowDefault = 65_535;
export const windowMax = 0x7fff_ffff;
export const streamIdMax = 0x7fff_ffff;

export interface FrameHead {
  readonly length: number;
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
}

/** Breaks the rules in a way that ends the whole connection, with GOAWAY. */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError';
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

export function writeHead(out: Buffer, at: number, head: FrameHead): void {
  // length is 24 bits; the highest bit of the id is reserved and 0.
  out.writeUIntBE(head.length, at, 3);
  out[at + 3] = head.type;
  out[at + 4] = head.flags;
  out.writeUInt32BE(head.streamId, at + 5);
}

function frame(head: Omit<FrameHead, 'length'>, payload: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(headBytes + payload.byteLength);
  writeHead(out, 0, { ...head, length: payload.byteLength });
  out.set(payload, headBytes);
  return out;
}

function words(...values: number[]): Buffer {
  const out = Buffer.allocUnsafe(4 * values.length);
  values.forEach((value, at) => out.writeUInt32BE(value, 4 * at));
  return out;
}

export function settingsFrame(settings: readonly (readonly [number, number])[]): Buffer {
  const payload = Buffer.allocUnsafe(settingBytes * settings.length);
  settings.forEach(([id, value], at) => {
    payload.writeUInt16BE(id, settingBytes * at);
    payload.writeUInt32BE(value, settingBytes * at + 2);
  });
  return frame({ type: FrameType.SETTINGS, flags: 0, streamId: 0 }, payload);
}

export const settingsAck = frame(
  { type: FrameType.SETTINGS, flags: Flag.ACK, streamId: 0 },
  new Uint8Array(),
);

export function pingAck(opaque: Uint8Array): Buffer {
  return frame({ type: FrameType.PING, flags: Flag.ACK, streamId: 0 }, opaque);
}

export function resetFrame(streamId: number, code: number): Buffer {
  return frame({ type: FrameType.RST_STREAM, flags: 0, streamId }, words(code));
}

export function windowUpdateFrame(streamId: number, increment: number): Buffer {
  return frame({ type: FrameType.WINDOW_UPDATE, flags: 0, streamId }, words(increment));
}

export function goawayFrame(lastStreamId: number, code: number, reason = ''): Buffer {
  const payload = Buffer.concat([words(lastStreamId, code), Buffer.from(reason, 'utf8')]);
  return frame({ type: FrameType.GOAWAY, flags: 0, streamId: 0 }, payload);
}
