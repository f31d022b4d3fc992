/** The package's main export: what a program that uses Quorate needs. */
export { QuorateClient, type ClientOptions, type OperationOptions } from './quorate-client.js';
export { QuorateLevel, type QuorateLevelOptions } from './quorate-level.js';
export { SessionToken } from './session-token.js';
export { KvError, type ErrorCode, type FailedAttempt, type Outcome } from '../errors.js';
export { ReadLevel } from '../../proto/messages.js';
export { slotOf } from '../router/slot.js';
export type * from '../../proto/messages.js';
