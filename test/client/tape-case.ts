/** What abstract-level's suite uses of tape, as mocha tests with chai's comparisons. */
import { expect } from 'chai';

type Run = (t: TapeCase) => unknown;

/** Stands in for tape's `test(name, [options], run)`. */
export function tapeTest(name: string, ...rest: readonly [object, Run] | readonly [Run]): void {
  const run = rest.length === 1 ? rest[0] : rest[1];
  it(name, () => new TapeCase().run(run));
}

/**
 * A test ends with its planned number of assertions; without a plan with its promise, or by end().
 * One assertion more than planned fails it, as it would in tape.
 */
export class TapeCase {
  private planned: number | undefined;
  private count = 0;
  private resolve: () => void = () => undefined;
  private reject: (error: unknown) => void = () => undefined;
  private readonly finished: Promise<void>;

  constructor() {
    this.finished = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  async run(run: Run): Promise<void> {
    const returned = run(this);
    if (returned instanceof Promise) {
      returned.then(() => {
        if (this.planned === undefined) this.resolve();
      }, this.reject);
    }
    await this.finished;
    if (returned instanceof Promise) await returned;
    if (this.planned !== undefined) expect(this.count, 'planned assertions').to.equal(this.planned);
  }

  plan(count: number): void {
    this.planned = count;
  }

  end(): void {
    this.resolve();
  }

  is(actual: unknown, expected: unknown, message?: string): void {
    this.assert(() =>
      expect(Object.is(actual, expected), textOf(message, actual, expected)).to.equal(true),
    );
  }

  isNot(actual: unknown, expected: unknown, message?: string): void {
    this.assert(() => expect(actual, message).to.not.equal(expected));
  }

  same(actual: unknown, expected: unknown, message?: string): void {
    this.assert(() => expect(actual, message).to.deep.equal(expected));
  }

  ok(value: unknown, message?: string): void {
    this.assert(() => expect(Boolean(value), message).to.equal(true));
  }

  pass(): void {
    this.assert(() => undefined);
  }

  fail(reason?: unknown): void {
    this.assert(() => {
      throw reason instanceof Error ? reason : new Error(`failed: ${String(reason)}`);
    });
  }

  throws(run: () => unknown, matches: (error: unknown) => boolean): void {
    this.assert(() => {
      let thrown: unknown;
      try {
        run();
      } catch (error) {
        thrown = error;
      }
      expect(thrown, 'what was thrown').to.not.equal(undefined);
      expect(matches(thrown), `an expected error, not ${String(thrown)}`).to.equal(true);
    });
  }

  doesNotThrow(run: () => unknown): void {
    this.assert(() => {
      run();
    });
  }

  /** A failure ends the test even where the suite would swallow what is thrown. */
  private assert(check: () => unknown): void {
    this.count += 1;
    try {
      check();
    } catch (error) {
      this.reject(error);
      throw error;
    }
    if (this.planned === undefined) return;
    if (this.count === this.planned) this.resolve();
    if (this.count > this.planned) this.reject(new Error(`more than ${this.planned} assertions`));
  }
}

function textOf(message: string | undefined, actual: unknown, expected: unknown): string {
  return `${message ?? 'is'}: ${String(actual)}, expected ${String(expected)}`;
}
