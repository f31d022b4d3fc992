/** What a SETTINGS frame says (RFC 9113, 6.5.2). */
import { ConnectionError, ErrorCode, Setting, settingBytes, windowMax } from './frames.js';

export interface PeerSettings {
  /** The last one in the frame: several of them change windows no more than one does. */
  initialWindowSize: number | undefined;
}

const frameSizeMin = 16_384;
const frameSizeMax = 16_777_215;

/** Throws ConnectionError for values that are not allowed; those that nobody knows are ignored. */
export function readSettings(payload: Buffer): PeerSettings {
  if (payload.length % settingBytes !== 0) {
    throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, 'SETTINGS that are not 6 bytes each');
  }
  const settings: PeerSettings = { initialWindowSize: undefined };
  for (let at = 0; at < payload.length; at += settingBytes) {
    const value = payload.readUInt32BE(at + 2);
    switch (payload.readUInt16BE(at)) {
      case Setting.ENABLE_PUSH:
        if (value > 1) throw refused('ENABLE_PUSH', value, ErrorCode.PROTOCOL_ERROR);
        break;
      case Setting.INITIAL_WINDOW_SIZE:
        if (value > windowMax) {
          throw refused('INITIAL_WINDOW_SIZE', value, ErrorCode.FLOW_CONTROL_ERROR);
        }
        settings.initialWindowSize = value;
        break;
      case Setting.MAX_FRAME_SIZE:
        if (value < frameSizeMin || value > frameSizeMax) {
          throw refused('MAX_FRAME_SIZE', value, ErrorCode.PROTOCOL_ERROR);
        }
        break;
      default:
    }
  }
  return settings;
}

function refused(name: string, value: number, code: number): ConnectionError {
  return new ConnectionError(code, `${name} ${value} is not allowed`);
}
