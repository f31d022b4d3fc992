import { expect } from 'chai';
import fc from 'fast-check';
import { KvError } from '../../src/errors.js';
import { slot, slotOf, type Slot } from '../../src/router/slot.js';
import {
  decodeCommand,
  encodeExpire,
  encodeHash,
  isHash,
  encodeTime,
  encodeWrites,
  UnknownCommand,
} from '../../src/shard/command-codec.js';
import { decodeResult, encodeResult } from '../../src/shard/result-codec.js';
import { decodeCursor, encodeCursor, startOf } from '../../src/shard/scan-cursor.js';
import {
  decodeSlotState,
  encodeSlotState,
  firstSlotState,
  SlotOwnership,
} from '../../src/shard/slot-state.js';
import {
  decodeSessionRecord,
  decodeValue,
  encodeSessionRecord,
  encodeValue,
  valueHeadBytes,
} from '../../src/shard/value-codec.js';
import { anyCount, anyDamage, anyDue, anyResult, anyWrite, damaged } from './arbitraries.js';
import { bytes, ifRevision, put, session, write } from './command-texts.js';

/** What a decoder may do with bytes that nobody encoded: answer, or throw one of these. */
function expectNoCrash(decode: () => unknown): void {
  try {
    decode();
  } catch (error) {
    if (error instanceof RangeError || error instanceof UnknownCommand) return;
    if (error instanceof KvError && error.code === 'KV_INVALID') return;
    throw error;
  }
}

const decoders = { decodeCommand, decodeResult, decodeValue, decodeSessionRecord, decodeSlotState };

describe('codecs of the shard', () => {
  it('give back every command as it was encoded', () => {
    fc.assert(
      fc.property(fc.array(anyWrite, { maxLength: 4 }), anyCount, (writes, logTimeMs) => {
        const command = decodeCommand(encodeWrites(writes, logTimeMs));
        if (command.kind !== 'writes') throw new Error(command.kind);
        expect(command.logTimeMs).to.equal(logTimeMs);
        const decoded = command.writes.map(({ operation, session: under }) => ({
          operation,
          session: under,
        }));
        expect(decoded).to.deep.equal(writes);
      }),
    );
    fc.assert(
      fc.property(fc.array(anyDue, { maxLength: 5 }), anyCount, (due, logTimeMs) => {
        const command = decodeCommand(encodeExpire(due, logTimeMs));
        expect(command).to.deep.equal({ kind: 'expire', logTimeMs, due });
      }),
    );
    expect(decodeCommand(encodeTime(77))).to.deep.equal({ kind: 'time', logTimeMs: 77 });
    expect(decodeCommand(encodeHash(78))).to.deep.equal({ kind: 'hash', logTimeMs: 78 });
    expect([encodeHash(78), encodeTime(78)].map(isHash)).to.deep.equal([true, false]);
  });

  it('D21: tell the bytes of each operation apart from those of its session', () => {
    const twice = [session(1, 5), session(2, 9, { firstUnacknowledged: 3 })].map((under) =>
      write(put('k', 'v'), under),
    );
    const command = decodeCommand(encodeWrites(twice, 1));
    if (command.kind !== 'writes') throw new Error(command.kind);
    const [first, second] = command.writes.map(({ operationBytes }) => Buffer.from(operationBytes));
    expect(first).to.deep.equal(second);
    const other = decodeCommand(encodeWrites([write(put('k', 'w'), session(1, 5))], 1));
    if (other.kind !== 'writes') throw new Error(other.kind);
    expect(other.writes[0]?.operationBytes).to.not.deep.equal(first);
  });

  it('give back every result, and every stored record', () => {
    fc.assert(
      fc.property(anyResult, (result) => {
        expect(decodeResult(encodeResult(result))).to.deep.equal(result);
      }),
    );
    const value = fc.record({
      revision: anyCount,
      ordinal: fc.nat(65535),
      expiresAtMs: anyCount,
      bytes: fc.uint8Array({ maxLength: 30 }).map((each) => Buffer.from(each)),
    });
    fc.assert(
      fc.property(value, (each) => {
        expect(decodeValue(encodeValue(each))).to.deep.equal(each);
        expect(encodeValue(each).byteLength).to.equal(valueHeadBytes + each.bytes.byteLength);
      }),
    );
    const entry = fc.record({
      sequence: anyCount,
      hash: fc.nat(2 ** 32 - 1),
      length: fc.nat(2 ** 32 - 1),
      notAfterMs: anyCount,
      result: anyResult.map((each) => Buffer.from(encodeResult(each))),
    });
    const record = fc.record({
      change: anyCount,
      floor: anyCount,
      lastNotAfterMs: anyCount,
      entries: fc.array(entry, { maxLength: 5 }),
    });
    fc.assert(
      fc.property(record, (each) => {
        expect(decodeSessionRecord(encodeSessionRecord(each))).to.deep.equal(each);
      }),
    );
    for (const ownership of Object.values(SlotOwnership)) {
      const counts = { keys: 2 ** 33, bytes: 2 ** 34, sum: 2 ** 47 + 1, ended: 2 ** 20 };
      const state = { epoch: 3, instance: 2 ** 40, change: 2 ** 50, expiring: true, ...counts };
      const migration = {
        id: 2 ** 21,
        peer: 7,
        from: 2 ** 35,
        logTimeMs: 2 ** 41,
        copied: true,
        through: 2 ** 36,
        buried: true,
        cursor: Buffer.from('k'),
      };
      for (const each of [undefined, migration]) {
        const pin = { key: Buffer.from('{a}'), isPrefix: true, epoch: 2, change: 2 ** 34 };
        for (const pins of [[], [{ ...pin, slot: 16384 as Slot }]]) {
          const lastPin = pins.length * 16390;
          const whole = { ...state, ownership, migration: each, pins, lastPin };
          expect(decodeSlotState(encodeSlotState(whole))).to.deep.equal(whole);
        }
      }
    }
  });

  it('answer damaged bytes with a typed error or another value, never with anything else', () => {
    const encoded = fc.oneof(
      fc.array(anyWrite, { maxLength: 3 }).map((each) => encodeWrites(each, 9)),
      fc.array(anyDue, { maxLength: 3 }).map((each) => encodeExpire(each, 9)),
      anyResult.map(encodeResult),
      fc.constant(encodeSlotState({ ...firstSlotState, change: 5 })),
    );
    fc.assert(
      fc.property(encoded, anyDamage, (whole, damage) => {
        const bad = damaged(whole, damage);
        for (const decode of Object.values(decoders)) expectNoCrash(() => decode(bad));
        expectNoCrash(() => decodeCursor(bad));
      }),
      { numRuns: 3000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (noise) => {
        for (const decode of Object.values(decoders)) expectNoCrash(() => decode(noise));
        expectNoCrash(() => decodeCursor(noise));
      }),
      { numRuns: 2000 },
    );
  });

  it('refuse every command, result and record that was cut, and every one with a byte too many', () => {
    const wholes: readonly (readonly [Uint8Array, (bytes: Uint8Array) => unknown])[] = [
      [encodeWrites([write(put('key', 'value'), session(1, 1))], 9), decodeCommand],
      [
        encodeExpire([{ slot: 1, dueMs: 2, kind: 'key', revision: 3, key: bytes('k') }], 9),
        decodeCommand,
      ],
      [encodeTime(9), decodeCommand],
      [encodeHash(9), decodeCommand],
      [encodeResult({ kind: 'increment', value: 1, revision: 1 }), decodeResult],
      [
        encodeSessionRecord({ change: 0, floor: 0, lastNotAfterMs: 1, entries: [] }),
        decodeSessionRecord,
      ],
      [encodeSlotState({ ...firstSlotState, change: 5 }), decodeSlotState],
    ];
    for (const [whole, decode] of wholes) {
      expect(() => decode(whole)).to.not.throw();
      for (let length = 0; length < whole.byteLength; length++)
        expect(() => decode(whole.subarray(0, length)), `cut at ${length}`).to.throw(RangeError);
      expect(() => decode(Buffer.concat([whole, Buffer.from([0])]))).to.throw(
        RangeError,
        'bytes too many',
      );
    }
    const value = encodeValue({ revision: 1, ordinal: 0, expiresAtMs: 0, bytes: bytes('') });
    for (let length = 0; length < value.byteLength; length++)
      expect(() => decodeValue(value.subarray(0, length))).to.throw(RangeError);
  });

  it('D16: stop at a command, operation, condition, compare or due of an unknown kind', () => {
    const whole = encodeWrites([write(put('k', 'v', { condition: ifRevision(7) }))], 1);
    const patched = (at: number, value: number): Uint8Array => {
      const copy = Buffer.from(whole);
      copy[at] = value;
      return copy;
    };
    const [head, flags, kind] = [1 + 1 + 8 + 4, 1, 1];
    const conditionAt = head + flags + kind + (4 + 1) + (4 + 1) + 8;
    expect(() => decodeCommand(patched(0, 2))).to.throw(UnknownCommand, 'command version 2');
    expect(() => decodeCommand(patched(1, 9))).to.throw(UnknownCommand, 'command kind 9');
    expect(() => decodeCommand(patched(head + flags, 99))).to.throw(UnknownCommand, 'operation');
    expect(() => decodeCommand(patched(conditionAt, 3))).to.throw(UnknownCommand, 'condition');
    const compared = encodeWrites(
      [
        write({
          kind: 'transaction',
          compare: [{ kind: 'exists', key: bytes('k'), exists: true }],
          then: [],
          else: [],
        }),
      ],
      1,
    );
    compared[head + flags + kind + 4] = 8;
    expect(() => decodeCommand(compared)).to.throw(UnknownCommand, 'compare kind 8');
    const due = encodeExpire(
      [{ slot: 1, dueMs: 2, kind: 'session', revision: 0, key: bytes('k') }],
      1,
    );
    due[head + 2 + 8] = 3;
    expect(() => decodeCommand(due)).to.throw(UnknownCommand, 'due kind 3');
  });

  it('D16: stop at a flag of a newer program instead of overlooking it', () => {
    const whole = Buffer.from(encodeWrites([write(put('k', 'v'))], 1));
    const flagsAt = 1 + 1 + 8 + 4;
    whole[flagsAt] = 2;
    expect(() => decodeCommand(whole)).to.throw(RangeError, 'a flag is 0 or 1');
    whole[flagsAt] = 0;
    whole[whole.byteLength - 1] = 3;
    expect(() => decodeCommand(whole)).to.throw(RangeError, 'a flag is 0 or 1');
  });

  it('D16: stop at a value, session record, slot state or result of an unknown version', () => {
    const value = encodeValue({ revision: 1, ordinal: 0, expiresAtMs: 0, bytes: bytes('x') });
    value[0] = 2;
    expect(() => decodeValue(value)).to.throw(RangeError, 'value of version 2');
    value[0] = 1;
    value[1] = 5;
    expect(() => decodeValue(value)).to.throw(RangeError, 'value of type 5');
    const record = encodeSessionRecord({ change: 0, floor: 0, lastNotAfterMs: 0, entries: [] });
    record[0] = 7;
    expect(() => decodeSessionRecord(record)).to.throw(RangeError, 'session record of version 7');
    const state = encodeSlotState({ ...firstSlotState, change: 0 });
    state[0] = 9;
    expect(() => decodeSlotState(state)).to.throw(RangeError, 'slot state of version 9');
    state[0] = 3;
    state[1] = 9;
    expect(() => decodeSlotState(state)).to.throw(RangeError, 'slot ownership 9');
    expect(() => decodeResult(Buffer.from([77]))).to.throw(RangeError, 'result kind 77');
    expect(() => decodeResult(Buffer.from([6, 99]))).to.throw(RangeError, 'unknown refusal');
  });

  it('refuse numbers that are no safe integers instead of rounding them', () => {
    const value = Buffer.from(
      encodeValue({ revision: 1, ordinal: 0, expiresAtMs: 0, bytes: bytes('x') }),
    );
    value.writeUInt32BE(0x200000, 6);
    expect(() => decodeValue(value)).to.throw(RangeError, 'safe integer');
    const time = Buffer.from(encodeTime(1));
    time.writeUInt32BE(0x200000, 2);
    expect(() => decodeCommand(time)).to.throw(RangeError, 'safe integer');
  });

  it('D21: encode no session whose client id has another length than 16 bytes', () => {
    const short = session(1, 1, { clientId: Buffer.alloc(15) });
    expect(() => encodeWrites([write(put('k', 'v'), short)], 1)).to.throw(RangeError, '15 bytes');
  });
});

describe('scan cursor', () => {
  it('goes on where it was given out', () => {
    const key = fc.uint8Array({ maxLength: 20 }).map((each) => Buffer.from(each));
    fc.assert(
      fc.property(fc.nat(16383), key, (number, from) => {
        const position = { slot: slot(number), from };
        expect(decodeCursor(encodeCursor(position))).to.deep.equal(position);
      }),
    );
  });

  it('D16: is refused when it is of another version, too short, or names no slot', () => {
    const good = encodeCursor({ slot: slot(5), from: bytes('k') });
    const change = (at: number, value: number): Uint8Array => {
      const copy = Buffer.from(good);
      copy[at] = value;
      return copy;
    };
    const bad = [bytes(''), good.subarray(0, 3), change(0, 2), change(1, 0x40), change(3, 3)];
    for (const each of bad) {
      expect(() => decodeCursor(each))
        .to.throw(KvError)
        .that.includes({ code: 'KV_INVALID', outcome: 'notApplied' });
    }
  });

  it('is refused with a request for another slot, and so is a key of another slot', () => {
    const asked = slotOf(bytes('a'));
    const other = slotOf(bytes('b'));
    const nothing = { cursor: undefined, afterKey: undefined };
    const cursor = encodeCursor({ slot: other, from: bytes('') });
    expect(() => startOf({ ...nothing, slot: asked, cursor }))
      .to.throw(KvError, 'slot')
      .that.includes({ code: 'KV_INVALID' });
    expect(() => startOf({ ...nothing, slot: asked, afterKey: bytes('b') }))
      .to.throw(KvError, 'slot')
      .that.includes({ code: 'KV_INVALID' });
    expect(startOf({ ...nothing, slot: other, cursor })).to.deep.equal({
      slot: other,
      from: bytes(''),
    });
    expect(startOf({ ...nothing, slot: undefined, cursor }).slot).to.equal(other);
    expect(startOf({ ...nothing, slot: undefined })).to.deep.equal({ slot: 0, from: bytes('') });
  });
});
