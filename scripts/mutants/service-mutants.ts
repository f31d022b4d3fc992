/** Bugs of the service: outcomes, sessions, reads and the migration of slots. */
import { tests, type Mutant } from './mutant.js';

const outcomes = tests('group/outcomes');
const groupReads = tests('group/reads');
const sessions = tests('shard/sessions');
const steps = tests('shard/migration');
const content = tests('shard/migration-content', 'R76|R70');
const copies = tests('shard/migration-content', 'the copy of a slot');
const anyOrder = tests('shard/migration.property');
const migrationReads = tests('shard/migration-reads');

export const serviceMutants: readonly Omit<Mutant, 'section'>[] = [
  // ---- outcomes
  {
    name: 'unknown-reported-as-failed',
    breaks: 'R52, D04: a proposal whose leader lost its office is called not applied',
    file: 'src/group/proposals.ts',
    find: "for (const { done } of waiters) done({ kind: 'unknown', reason });",
    replace: "for (const { done } of waiters) done({ kind: 'notApplied', reason: 'overwritten' });",
    checks: [outcomes],
  },
  {
    name: 'unknown-outcome-told-as-failure',
    breaks: 'R52: the client hears that a write of unknown outcome had no effect',
    file: 'src/shard/shard-errors.ts',
    find: "{ code: 'KV_UNKNOWN_OUTCOME', outcome: 'unknown' },",
    replace: "{ code: 'KV_UNAVAILABLE', outcome: 'notApplied' },",
    checks: [tests('shard/shard')],
  },
  {
    name: 'answer-of-another-entry',
    breaks: 'R51: a proposal is answered by whatever was committed at its index',
    file: 'src/group/proposals.ts',
    find: 'if (waiter.term === term) {',
    replace: 'if (waiter.term > 0) {',
    checks: [outcomes],
  },

  {
    name: 'later-refusal-hides-an-earlier-attempt',
    breaks:
      'R52, D04: the client says "not applied" of a write whose first attempt nobody answered',
    file: 'src/client/attempts.ts',
    find: "const outcome = this.isRead ? 'notApplied' : this.unknown ? 'unknown' : error.outcome;",
    replace: "const outcome = this.isRead ? 'notApplied' : error.outcome;",
    checks: [
      tests(['client/odd-answers', 'client/broken-streams', 'client/batching', 'client/routing']),
    ],
  },
  {
    name: 'broken-stream-told-as-failure',
    breaks: 'R52: a batch whose stream broke is called not applied',
    file: 'src/client/pipeline.ts',
    find: "return new KvError(`${endpoint}: ${text} while a request was under way`, {\n    code: 'KV_UNKNOWN_OUTCOME',\n    outcome: 'unknown',",
    replace:
      "return new KvError(`${endpoint}: ${text} while a request was under way`, {\n    code: 'KV_UNKNOWN_OUTCOME',\n    outcome: 'notApplied',",
    checks: [tests('client/broken-streams')],
  },
  {
    name: 'retry-under-a-new-sequence',
    breaks: 'R50: sequence numbers of writes that are under way are called finished',
    file: 'src/client/session-book.ts',
    find: 'while (!this.open.has(this.lowest)) this.lowest += 1;',
    replace: 'this.lowest = sequence;',
    checks: [tests('client/session-book')],
  },

  // ---- sessions
  {
    name: 'no-dedup',
    breaks: 'R50: a repeated write is applied again',
    file: 'src/shard/apply-run.ts',
    find: "if (verdict.kind === 'repeated') return verdict.result;",
    replace: '',
    checks: [sessions],
  },
  {
    name: 'expired-session-applied',
    breaks: 'D21: a write whose record may have been there and gone is applied',
    file: 'src/shard/sessions.ts',
    find: "if (session.notAfterMs < logTimeMs) return { kind: 'refused', refusal: 'sessionExpired' };",
    replace: '',
    checks: [sessions],
  },
  {
    name: 'forgotten-session-applied',
    breaks: 'D21: a write below the floor is applied again',
    file: 'src/shard/sessions.ts',
    find: "if (record !== undefined && session.sequence < record.floor)\n    return { kind: 'refused', refusal: 'sessionForgotten' };",
    replace: '',
    checks: [sessions],
  },
  {
    name: 'session-reused-for-another-write',
    breaks: 'D21: another write under a known sequence number gets the old result',
    file: 'src/shard/sessions.ts',
    find: "if (entry.hash !== print.hash || entry.length !== print.length)\n      return { kind: 'refused', refusal: 'sessionMismatch' };",
    replace: '',
    checks: [sessions],
  },
  {
    name: 'log-time-goes-back',
    breaks: 'D22: a new leader with a slow clock turns time back',
    file: 'src/shard/apply-run.ts',
    find: 'this.state.logTimeMs = Math.max(this.state.logTimeMs, command.logTimeMs);',
    replace: 'this.state.logTimeMs = command.logTimeMs;',
    checks: [tests('shard/expiry')],
  },
  {
    name: 'expiry-not-judged-again',
    breaks: 'D22: a late expiry removes a newer value',
    file: 'src/shard/apply-run.ts',
    find: 'if (value?.revision !== due.revision || value.expiresAtMs !== due.dueMs) return;',
    replace: 'if (value === undefined) return;',
    checks: [tests('shard/expiry')],
  },

  // ---- reads
  {
    name: 'lease-not-checked-after-the-wait',
    breaks: 'R30: a lease is not checked again when the answer is given',
    file: 'src/shard/shard-reads.ts',
    find: '} else if (freshness?.stillValid() === false) {',
    replace: '} else if (freshness === null) {',
    checks: [tests('shard/shard')],
  },
  {
    name: 'lease-always-valid',
    breaks: 'R30: a lease that was valid once is called valid later',
    file: 'src/group/reads.ts',
    find: 'return node.leaseValid(term);',
    replace: 'return true;',
    checks: [groupReads],
  },
  {
    name: 'read-before-it-is-applied',
    breaks: 'R13: a read is answered before the state machine has reached its index',
    file: 'src/group/reads.ts',
    find: 'const ready = this.confirmed.filter((each) => each.index <= applied);',
    replace: 'const ready = this.confirmed.splice(0);',
    checks: [groupReads],
  },
  {
    name: 'read-context-used-twice',
    breaks: 'D08: a late answer confirms a later read',
    file: 'src/group/reads.ts',
    find: '${++this.contexts}`',
    replace: '${this.contexts}`',
    checks: [groupReads],
  },
  {
    name: 'slot-not-checked-after-the-read',
    breaks: 'D23: a slot that has left while the engine was asked is answered from',
    file: 'src/shard/shard-reads.ts',
    find: 'if (!isServing(state) || state.epoch !== epoch) refused.set(n, notServed(state));',
    replace: 'if (state.epoch > epoch + 1_000_000) refused.set(n, notServed(state));',
    checks: [migrationReads],
  },
  {
    name: 'read-during-an-install',
    breaks: 'D23: a read is answered from a state that a snapshot is replacing',
    file: 'src/shard/shard-reads.ts',
    find: "if (replaced) read.done(readError('restoring'), undefined);\n        else if",
    replace: 'if',
    checks: [tests('shard/shard')],
  },

  // ---- migrations
  {
    name: 'ownership-not-checked-in-apply',
    breaks: 'R75: writes are applied to a slot that has left',
    file: 'src/shard/apply-run.ts',
    find: 'if (refusal !== undefined) return refused(refusal);\n    const { session }',
    replace: 'const { session }',
    checks: [steps, anyOrder],
  },
  {
    name: 'no-freeze-at-the-source',
    breaks: 'R70: the source takes writes after the last change was read',
    file: 'src/shard/slot-state.ts',
    find: 'return ownership === SlotOwnership.owned || ownership === SlotOwnership.exporting;',
    replace:
      'return ownership === SlotOwnership.owned || ownership === SlotOwnership.exporting || ownership === SlotOwnership.frozen;',
    checks: [steps, migrationReads, anyOrder],
  },
  {
    name: 'target-serves-before-the-handover',
    breaks: 'R71: the target serves as soon as it has everything',
    file: 'src/shard/slot-state.ts',
    find: 'return ownership === SlotOwnership.owned || ownership === SlotOwnership.exporting;',
    replace:
      'return ownership === SlotOwnership.owned || ownership === SlotOwnership.exporting || ownership === SlotOwnership.ready;',
    checks: [steps, migrationReads, anyOrder],
  },
  {
    name: 'handover-without-the-last-changes',
    breaks: 'R70: the target is called ready before it has the last changes',
    file: 'src/shard/apply-step.ts',
    find: 'if (found?.migration.copied !== true || found.migration.through !== change) return;',
    replace: 'if (found?.migration.copied !== true) return;',
    checks: [steps, anyOrder],
  },
  {
    name: 'handover-of-another-freeze',
    breaks: 'D30: a report of an earlier freeze gives the slot away',
    file: 'src/shard/apply-step.ts',
    find: 'if (found?.slot.change !== terms.change || logTimeMs !== terms.logTimeMs) return undefined;',
    replace: 'if (found === undefined) return undefined;',
    checks: [steps, anyOrder],
  },
  {
    name: 'contents-not-compared',
    breaks: 'D32: a copy that differs from the original takes over',
    file: 'src/shard/apply-step.ts',
    find: 'if (slot.keys !== terms.keys || slot.sum !== terms.sum) {',
    replace: 'if (slot.keys < 0) {',
    checks: [steps],
  },
  {
    name: 'epoch-not-raised',
    breaks: 'R74: the slot changes its shard under the same epoch',
    file: 'src/shard/apply-step.ts',
    find: 'slot.ownership = SlotOwnership.handedOver;\n  slot.epoch++;',
    replace: 'slot.ownership = SlotOwnership.handedOver;',
    checks: [steps, anyOrder],
  },
  {
    name: 'sessions-not-copied',
    breaks: 'R76: the copy of a slot leaves its session records behind',
    file: 'src/shard/slot-export.ts',
    find: 'kindsRange(prefix, { slot, instance }, KeyKind.value, KeyKind.session);',
    replace: 'kindsRange(prefix, { slot, instance }, KeyKind.value, KeyKind.value);',
    checks: [steps, content],
  },
  {
    name: 'session-changes-not-followed',
    breaks: 'R76: what sessions write while their slot is copied stays behind',
    file: 'src/shard/working-state.ts',
    find: 'if (ownership !== SlotOwnership.exporting || migration === undefined) return;',
    replace:
      'if (ownership !== SlotOwnership.exporting || migration === undefined || kind === KeyKind.session) return;',
    checks: [content],
  },
  {
    name: 'older-copy-overwrites-newer',
    breaks: 'R70: the copy of a record replaces a newer change of it',
    file: 'src/shard/apply-step.ts',
    find: 'if (change <= known || change <= state.tombstone(slot, kind, key)) return;',
    replace: 'if (change <= state.tombstone(slot, kind, key)) return;',
    checks: [copies, anyOrder],
  },
  {
    name: 'delete-without-tombstone',
    breaks: 'R78: a late copy brings back what was deleted',
    file: 'src/shard/apply-step.ts',
    find: 'if (change > state.tombstone(slot, kind, key)) state.bury(slot, kind, key, change);',
    replace: '',
    checks: [copies, anyOrder],
  },
  {
    name: 'gap-in-the-changes',
    breaks: 'R70: changes that were lost on their way are skipped',
    file: 'src/shard/apply-step.ts',
    find: 'if (after > migration.through || through <= migration.through) return;',
    replace: 'if (through <= migration.through) return;',
    checks: [copies, anyOrder],
  },
  {
    name: 'abort-leaves-the-target-serving',
    breaks: 'R71: an import that was ended serves all the same',
    file: 'src/shard/apply-step.ts',
    find: 'slot.ownership = SlotOwnership.absent;\n  slot.ended = place.id;',
    replace: 'slot.ownership = SlotOwnership.owned;\n  slot.ended = place.id;',
    checks: [steps, anyOrder],
  },
  {
    name: 'step-in-a-wrong-state',
    breaks: 'D30: a step counts in whatever state the slot is',
    file: 'src/shard/apply-step.ts',
    find: 'if (!ownerships.includes(ownership) || migration?.id !== id) return undefined;',
    replace: 'if (migration?.id !== id) return undefined;',
    checks: [steps, anyOrder],
  },
  {
    name: 'step-of-another-migration',
    breaks: 'D30: a late step of an earlier migration counts',
    file: 'src/shard/apply-step.ts',
    find: 'if (!ownerships.includes(ownership) || migration?.id !== id) return undefined;',
    replace: 'if (!ownerships.includes(ownership) || migration === undefined) return undefined;',
    checks: [anyOrder],
  },
  {
    name: 'ended-migration-begins-again',
    breaks: 'D30: a late begin of a migration that has ended begins it anew',
    file: 'src/shard/apply-step.ts',
    find: 'return now.ownership === ownership && now.ended < id ? state.edit(slot) : undefined;',
    replace: 'return now.ownership === ownership ? state.edit(slot) : undefined;',
    checks: [steps, anyOrder],
  },
  {
    name: 'late-time-at-the-target',
    breaks: 'D22: what the source hid as expired is there again at the target',
    file: 'src/shard/apply-step.ts',
    find: 'place.state.logTimeMs = Math.max(place.state.logTimeMs, migration.logTimeMs);',
    replace: '',
    checks: [steps],
  },

  // ---- metadata
  {
    name: 'old-report-moves-slots-again',
    breaks: 'D30: a report that comes after the end gives a slot away once more',
    file: 'src/meta/migration-commands.ts',
    find: 'if (isEnded(migration)) return endedAlready(migration);\n  const isFresh',
    replace: 'const isFresh',
    checks: [tests('meta/migrations')],
  },
  {
    name: 'slot-in-two-migrations',
    breaks: 'D30: a slot that is on its way is sent elsewhere',
    file: 'src/meta/migration-commands.ts',
    find: 'slotTaken(slots, open) ?? notOwned(',
    replace: 'notOwned(',
    checks: [tests('meta/migrations')],
  },
  {
    name: 'migration-from-a-shard-that-is-not-the-owner',
    breaks: 'R74: slots are moved by a shard that does not own them',
    file: 'src/meta/migration-commands.ts',
    find: '?? notOwned(topology, slots, source) ??',
    replace: '??',
    checks: [tests('meta/migration-refusals')],
  },
  {
    name: 'moved-before-it-has-begun',
    breaks: 'a report about a migration that never ran moves its slots',
    file: 'src/meta/migration-commands.ts',
    find: "if (!migration.hasRun)\n    return refused('migrationNotBegun', `migration ${id} has not begun: nothing can have moved`);",
    replace: '',
    checks: [tests('meta/migration-refusals')],
  },
  {
    name: 'recovered-metadata-not-held-back',
    breaks: 'D01, D07: a recovered metadata group gives out ids that the lost may have given out',
    file: 'src/cluster/metadata.ts',
    find: 'return this.group.generation > generationOf(topology, metadataGroup);',
    replace: 'return false;',
    checks: [tests('cluster-unit/recovered-groups')],
  },
];
