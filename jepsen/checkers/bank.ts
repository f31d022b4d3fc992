/**
 * Accounts in one slot, and transfers between them: whatever happens, no money is made or lost, every
 * look at all accounts finds the same sum, and none of them below zero.
 */
import type { Operation, Verdict } from '../history.js';
import { byKey, describeOperation, verdict, type Findings } from './findings.js';
import { numberOf } from './models.js';

/** `total`: of the accounts of each key (each bank). Reads and scans show all accounts of a bank. */
export function checkBank(
  operations: readonly Operation[],
  { total, accounts }: { readonly total: number; readonly accounts: number },
): Verdict {
  return verdict('bank', operations, (findings) => {
    for (const ofKey of byKey(operations).values()) {
      for (const look of ofKey) {
        const isLook = look.op === 'read' || look.op === 'scan';
        if (isLook && look.status === 'ok') checkLook(look, { total, accounts }, findings);
      }
    }
  });
}

function checkLook(
  look: Operation,
  { total, accounts }: { readonly total: number; readonly accounts: number },
  findings: Findings,
): void {
  const balances = balancesOf(look);
  const sum = balances.reduce((all, [, balance]) => all + balance, 0);
  const below = balances.find(([, balance]) => balance < 0);
  const where = `${describeOperation(look)} at ${(look.callNs / 1e6).toFixed(1)} ms`;
  if (balances.length !== accounts)
    findings.found([`${balances.length} accounts instead of ${accounts}: ${where}`]);
  else if (sum !== total) findings.found([`the sum is ${sum} instead of ${total}: ${where}`]);
  else if (below !== undefined) findings.found([`account ${below[0]} is below zero: ${where}`]);
}

function balancesOf({ output, key }: Operation): readonly (readonly [string, number])[] {
  if (typeof output !== 'object' || output === null)
    throw new RangeError(`bank ${key}: balances were expected`);
  const pairs: readonly unknown[] = Array.isArray(output) ? output : Object.entries(output);
  return pairs.map((pair) => {
    if (!Array.isArray(pair) || pair.length !== 2)
      throw new RangeError(`bank ${key}: pairs of account and balance were expected`);
    return [String(pair[0]), numberOf(pair[1])];
  });
}
