/**
 * Money goes from one account to another, all of them in one slot: read both, then write both if
 * neither has changed. One transaction looks at all of them.
 */
import type { OperationMessage } from '../../src/client/index.js';
import type { Random } from '../random.js';
import { NotDone } from '../recorder.js';
import { bytes, KeySupply, textOf, type Actor, type Workload } from './workload.js';

export const bankAccounts = 5;
const balanceFirst = 100;
export const bankTotal = bankAccounts * balanceFirst;

interface Balance {
  readonly name: string;
  readonly amount: number;
  readonly revision: number;
}

export class BankWorkload implements Workload {
  private readonly supply: KeySupply;
  /** Banks that are known to have accounts: from then on none may be missing. */
  private readonly opened = new Set<string>();

  constructor(random: Random, width: number) {
    this.supply = new KeySupply('bank', random, width);
  }

  get keys(): readonly string[] {
    return this.supply.used;
  }

  async step(actor: Actor): Promise<void> {
    const key = this.supply.take(actor.random);
    if (actor.random.chance(0.35)) {
      await this.readBack(actor, key);
      return;
    }
    const [from = 0, to = 0] = actor.random.shuffled(
      Array.from({ length: bankAccounts }, (_, n) => n),
    );
    const amount = actor.random.integer(1, 20);
    const value = { from, to, amount };
    await actor.record({ op: 'transfer', key, value }, () => this.transfer(actor, key, value));
  }

  async readBack(actor: Actor, key: string): Promise<boolean> {
    const seen = await actor.record({ op: 'scan', key }, async () => {
      const balances = await this.look(actor, key);
      return Object.fromEntries(balances.map(({ name, amount }) => [name, amount]));
    });
    return seen !== undefined;
  }

  private async transfer(
    actor: Actor,
    key: string,
    { from, to, amount }: { readonly from: number; readonly to: number; readonly amount: number },
  ): Promise<boolean> {
    const balances = await this.look(actor, key).catch((error: unknown) => {
      throw new NotDone(`could not look: ${String(error)}`);
    });
    const giver = balances.find(({ name }) => name === accountName(key, from));
    const taker = balances.find(({ name }) => name === accountName(key, to));
    if (giver === undefined || taker === undefined) throw new NotDone('an account is missing');
    if (giver.amount < amount) throw new NotDone('not enough money');
    const { succeeded } = await actor.kv.txn({
      compare: [giver, taker].map(({ name, revision }) => ({ key: bytes(name), revision })),
      then: [put(giver.name, giver.amount - amount), put(taker.name, taker.amount + amount)],
    });
    return succeeded;
  }

  /** All accounts at one moment; they are opened first if nobody has done so. */
  private async look({ kv }: Actor, key: string): Promise<readonly Balance[]> {
    const names = Array.from({ length: bankAccounts }, (_, n) => accountName(key, n));
    const gets = names.map((name): OperationMessage => ({ get: { key: bytes(name) } }));
    if (!this.opened.has(key)) {
      await kv.txn({
        compare: names.slice(0, 1).map((name) => ({ key: bytes(name), exists: false })),
        then: names.map((name) => put(name, balanceFirst)),
      });
      this.opened.add(key);
    }
    const { results = [] } = await kv.txn({ then: gets });
    return results.flatMap(({ get }, n) => {
      const found = get?.kv;
      const name = names[n] ?? '';
      if (!found) return [];
      return [{ name, amount: Number(textOf(found.value)), revision: found.revision }];
    });
  }
}

function accountName(key: string, account: number): string {
  return `{${key}}account-${account}`;
}

function put(name: string, amount: number): OperationMessage {
  return { put: { key: bytes(name), value: bytes(String(amount)) } };
}
