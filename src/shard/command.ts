/**
 * What a shard's log carries and what applying it returns. The bytes of an encoded command are the
 * payload of the Raft entry, on the wire and on every disk; `command-codec.ts` has the layout.
 */

import type { Slot } from '../router/slot.js';

/** Condition of a put or delete. */
export type Condition =
  | { readonly kind: 'none' }
  | { readonly kind: 'absent' }
  | { readonly kind: 'revision'; readonly revision: number };

export type WriteOperation =
  | {
      readonly kind: 'put';
      readonly key: Uint8Array;
      readonly value: Uint8Array;
      /** Milliseconds after the log time at apply; 0: never expires. */
      readonly ttlMs: number;
      readonly condition: Condition;
      readonly returnPrevious: boolean;
    }
  | {
      readonly kind: 'delete';
      readonly key: Uint8Array;
      readonly condition: Condition;
      readonly returnPrevious: boolean;
    }
  | {
      readonly kind: 'increment';
      readonly key: Uint8Array;
      readonly delta: number;
      readonly ttlMs: number;
    };

export type Operation = WriteOperation | { readonly kind: 'get'; readonly key: Uint8Array };

export type Compare =
  | { readonly kind: 'exists'; readonly key: Uint8Array; readonly exists: boolean }
  | { readonly kind: 'revision'; readonly key: Uint8Array; readonly revision: number }
  | { readonly kind: 'value'; readonly key: Uint8Array; readonly value: Uint8Array };

/** Compare, then do one of two lists; all keys in one slot. */
export interface Transaction {
  readonly kind: 'transaction';
  readonly compare: readonly Compare[];
  readonly then: readonly Operation[];
  readonly else: readonly Operation[];
}

/** Exactly-once bookkeeping (rule D21). */
export interface Session {
  /** 16 bytes. */
  readonly clientId: Uint8Array;
  readonly sequence: number;
  readonly firstUnacknowledged: number;
  /** Server log time, ms since 1970; 0: the leader fills in its maximum. */
  readonly notAfterMs: number;
}

/** One write of one client: what one dedup record stands for. */
export interface Write {
  readonly operation: WriteOperation | Transaction;
  readonly session: Session | undefined;
}

export interface KeyValue {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly revision: number;
  /** Log time in ms since 1970; 0: never. */
  readonly expiresAtMs: number;
}

export type OperationResult =
  | { readonly kind: 'get'; readonly kv: KeyValue | undefined }
  /** `previous`: with returnPrevious, or when the condition failed. */
  | {
      readonly kind: 'put';
      readonly applied: boolean;
      readonly revision: number;
      readonly previous: KeyValue | undefined;
    }
  | {
      readonly kind: 'delete';
      readonly applied: boolean;
      readonly existed: boolean;
      readonly revision: number;
      readonly previous: KeyValue | undefined;
    }
  | { readonly kind: 'increment'; readonly value: number; readonly revision: number };

/** Why apply refused a write; deterministic, and surely without effect unless it says otherwise. */
export type Refusal =
  | 'wrongShard' // the slot is not owned here
  | 'moving' // it is about to change its owner: try again in a moment
  | 'notInteger' // increment of a value that is no decimal integer
  | 'outOfRange' // a sum beyond +-(2^53 - 1)
  | 'sessionExpired' // later than not_after: the first attempt's outcome is no longer known
  | 'sessionForgotten' // below the client's first_unacknowledged: its record was dropped
  | 'sessionMismatch' // the same sequence with another command
  | 'tooManySlots'; // a transaction over more than one slot

export type WriteResult =
  | OperationResult
  | {
      readonly kind: 'transaction';
      readonly succeeded: boolean;
      readonly results: readonly OperationResult[];
      readonly revision: number;
    }
  | {
      readonly kind: 'refused';
      readonly refusal: Refusal;
      /** Of wrongShard, moving and tooManySlots: the pin that a key of it belongs to. */
      readonly pin?: Slot;
    };

/** What one applied command returns: one result per write, and the log time it was applied at. */
export interface CommandResult {
  readonly logTimeMs: number;
  readonly results: readonly WriteResult[];
  /** Of a handover: slots whose copy is not what the source has. They stay, and the migration failed. */
  readonly differing?: readonly Slot[];
}
