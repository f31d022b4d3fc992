/** `quorate kv ...`: one command for each operation of the KV service. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import type { KeyValueMessage, OperationMessage, TxnRequest } from '../../proto/messages.js';
import type { SessionToken } from '../client/index.js';
import { ExitCode, printJson, printTable, showBytes, textOrBase64, UsageError } from './output.js';
import { addLoadAndDump } from './load-dump.js';
import {
  parseInteger,
  parseLevel,
  parseToken,
  withClient,
  withClientFlags,
  type ClientFlags,
} from './options.js';
import { runShell } from './shell.js';

const bytes = (text: string): Uint8Array => Buffer.from(text, 'utf8');
const intMax = Number.MAX_SAFE_INTEGER;

interface TokenFlags extends ClientFlags {
  readonly token?: string;
}

/** What the client takes as options of a call. */
interface UnderToken {
  readonly token?: SessionToken;
}

interface PutFlags extends TokenFlags {
  readonly ttl?: string;
  readonly ifAbsent?: boolean;
  readonly ifRevision?: string;
  readonly previous?: boolean;
  readonly file?: string;
}

interface ReadFlags extends TokenFlags {
  readonly level?: string;
  readonly maxStaleness?: string;
}

interface ScanFlags extends ReadFlags {
  readonly prefix: string;
  readonly slot?: string;
  readonly limit: string;
  readonly keysOnly?: boolean;
}

/** The KV commands under `name` (the shell uses the same ones). */
export function kvCommand(): Command {
  const kv = new Command('kv').description('read and write keys');
  addGet(kv);
  addPut(kv);
  addDelete(kv);
  addIncrement(kv);
  addCas(kv);
  addTxn(kv);
  addScan(kv);
  addLoadAndDump(kv);
  withClientFlags(
    kv.command('shell').description('an interactive prompt over these commands'),
  ).action((flags: ClientFlags) => runShell(flags, kvCommand));
  return kv;
}

function addReadFlags(command: Command): Command {
  return withTokenFlag(command)
    .option(
      '--level <level>',
      'linearizable, lease, at-least or stale; without it at-least with --token, else linearizable',
    )
    .option(
      '--max-staleness <ms>',
      'how old the answer may be: with stale (else 5000) and at-least (else any age)',
    );
}

function withTokenFlag(command: Command): Command {
  return withClientFlags(command).option(
    '--token <text>',
    "what the session has seen, from an earlier answer, or 'new': the answer brings the next one",
  );
}

function readOf({ level, maxStaleness }: ReadFlags): { level?: number; maxStalenessMs: number } {
  const maxStalenessMs =
    maxStaleness === undefined ? 0 : parseInteger('--max-staleness', maxStaleness, 1, intMax);
  return level === undefined ? { maxStalenessMs } : { level: parseLevel(level), maxStalenessMs };
}

function tokenOf(flags: TokenFlags): UnderToken {
  const token = parseToken(flags.token);
  return token === undefined ? {} : { token };
}

function tokenJson({ token }: UnderToken): Record<string, string> {
  return token === undefined ? {} : { token: token.toString() };
}

/** Not where a script looks for the value. */
function printToken({ token }: UnderToken): void {
  if (token !== undefined) console.error(`token: ${token.toString()}`);
}

function kvJson(kv: KeyValueMessage): Record<string, unknown> {
  return {
    ...textOrBase64('key', kv.key),
    ...textOrBase64('value', kv.value),
    revision: kv.revision,
    ...(kv.expiresAtMs > 0 ? { expires_at_ms: kv.expiresAtMs } : {}),
  };
}

function addGet(kv: Command): void {
  addReadFlags(kv.command('get <key>').description('print the value of a key')).action(
    (key: string, flags: ReadFlags) =>
      withClient(flags, async (client) => {
        const session = tokenOf(flags);
        const { kv: found } = await client.get({ key: bytes(key), ...readOf(flags) }, session);
        if (flags.output === 'json') {
          printJson({ ...(found ? kvJson(found) : { key, found: false }), ...tokenJson(session) });
        } else {
          if (found) console.log(showBytes(found.value));
          else console.error(`no such key: ${key}`);
          printToken(session);
        }
        if (!found) process.exitCode = ExitCode.error;
      }),
  );
}

function addPut(kv: Command): void {
  withTokenFlag(kv.command('put <key> [value]').description('write a key (value also from --file)'))
    .option('--ttl <ms>', 'milliseconds until it expires')
    .option('--if-absent', 'only if there is no such key')
    .option('--if-revision <n>', 'only if the key has this revision')
    .option('--previous', 'print what was there before')
    .option('--file <path>', 'take the value from a file')
    .action((key: string, value: string | undefined, flags: PutFlags) =>
      withClient(flags, async (client) => {
        if ((value === undefined) === (flags.file === undefined)) {
          throw new UsageError('give a value or --file, not both');
        }
        const session = tokenOf(flags);
        const put = {
          key: bytes(key),
          value: flags.file === undefined ? bytes(value ?? '') : readFileSync(flags.file),
          ttlMs: parseInteger('--ttl', flags.ttl ?? '0', 0, intMax),
          ifAbsent: flags.ifAbsent ?? false,
          ifRevision: optionalRevision(flags.ifRevision),
          returnPrevious: flags.previous ?? false,
        };
        printWritten(await client.put(put, session), flags.output, session);
      }),
    );
}

function optionalRevision(text: string | undefined): number | null {
  return text === undefined ? null : parseInteger('--if-revision', text, 0, intMax);
}

interface Written {
  readonly applied: boolean;
  readonly revision: number;
  readonly previous?: KeyValueMessage | null | undefined;
}

function printWritten(
  { applied, revision, previous }: Written,
  form: string,
  session: UnderToken,
): void {
  if (form === 'json') {
    const before = previous ? { previous: kvJson(previous) } : {};
    printJson({ applied, revision, ...before, ...tokenJson(session) });
  } else if (applied) {
    console.log(`ok, revision ${revision}`);
    if (previous)
      console.log(`previous: ${showBytes(previous.value)} (revision ${previous.revision})`);
  } else {
    console.error(
      `not applied: the key has revision ${revision}${revision === 0 ? ' (no such key)' : ''}`,
    );
  }
  if (form === 'table') printToken(session);
  if (!applied) process.exitCode = ExitCode.error;
}

function addDelete(kv: Command): void {
  withTokenFlag(kv.command('del <key>').description('remove a key'))
    .option('--if-revision <n>', 'only if the key has this revision')
    .option('--previous', 'print what was there')
    .action((key: string, flags: PutFlags) =>
      withClient(flags, async (client) => {
        const session = tokenOf(flags);
        const del = {
          key: bytes(key),
          ifRevision: optionalRevision(flags.ifRevision),
          returnPrevious: flags.previous ?? false,
        };
        const reply = await client.delete(del, session);
        if (flags.output === 'table' && reply.applied && !reply.existed) {
          console.log('ok, there was no such key');
          printToken(session);
        } else printWritten(reply, flags.output, session);
      }),
    );
}

function addIncrement(kv: Command): void {
  withTokenFlag(kv.command('incr <key> [delta]').description('add to a counter (default 1)'))
    .option('--ttl <ms>', 'milliseconds until a new counter expires')
    .action((key: string, delta: string | undefined, flags: PutFlags) =>
      withClient(flags, async (client) => {
        const session = tokenOf(flags);
        const increment = {
          key: bytes(key),
          delta: parseInteger('delta', delta ?? '1', -intMax, intMax),
          ttlMs: parseInteger('--ttl', flags.ttl ?? '0', 0, intMax),
        };
        const { value, revision } = await client.increment(increment, session);
        if (flags.output === 'json') {
          printJson({ value, revision, ...tokenJson(session) });
          return;
        }
        console.log(String(value));
        printToken(session);
      }),
    );
}

function addCas(kv: Command): void {
  withClientFlags(
    kv
      .command('cas <key> <expected> <value>')
      .description('write a key only if it holds the expected value'),
  ).action((key: string, expected: string, value: string, flags: ClientFlags) =>
    withClient(flags, async (client) => {
      const reply = await client.txn({
        compare: [{ key: bytes(key), value: bytes(expected) }],
        then: [{ put: { key: bytes(key), value: bytes(value) } }],
        else: [{ get: { key: bytes(key) } }],
      });
      const found = reply.results?.[0]?.get?.kv;
      if (flags.output === 'json') {
        printJson({
          applied: reply.succeeded,
          revision: reply.revision,
          ...(found ? { found: kvJson(found) } : {}),
        });
      } else if (reply.succeeded) console.log(`ok, revision ${reply.revision}`);
      else
        console.error(
          `not applied: the key ${found ? `holds ${showBytes(found.value)}` : 'does not exist'}`,
        );
      if (!reply.succeeded) process.exitCode = ExitCode.error;
    }),
  );
}

const txnHelp = `
The transaction is JSON, from the argument or from standard input ("-"):
  {"compare": [{"key": "a{x}", "revision": 3}, {"key": "b{x}", "exists": false}, {"key": "c{x}", "value": "v"}],
   "then":    [{"put": {"key": "a{x}", "value": "1"}}, {"delete": {"key": "c{x}"}}, {"increment": {"key": "n{x}", "delta": 2}}],
   "else":    [{"get": {"key": "a{x}"}}]}
All keys must be in one slot: give them the same {tag}.`;

function addTxn(kv: Command): void {
  withClientFlags(
    kv.command('txn <json>').description('compare, then do one of two lists of operations'),
  )
    .addHelpText('after', txnHelp)
    .action((json: string, flags: ClientFlags) =>
      withClient(flags, async (client) => {
        const reply = await client.txn(parseTxn(json === '-' ? readFileSync(0, 'utf8') : json));
        printJson({
          succeeded: reply.succeeded,
          revision: reply.revision,
          results: (reply.results ?? []).map((result) => {
            if (result.get) return { get: result.get.kv ? kvJson(result.get.kv) : null };
            if (result.put)
              return { put: { applied: result.put.applied, revision: result.put.revision } };
            if (result.delete)
              return { delete: { applied: result.delete.applied, existed: result.delete.existed } };
            return { increment: { value: result.increment?.value } };
          }),
        });
        if (!reply.succeeded) process.exitCode = ExitCode.error;
      }),
    );
}

type Json = Readonly<Record<string, unknown>>;

function parseTxn(text: string): Omit<TxnRequest, 'header' | 'session'> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new UsageError(
      `the transaction is not JSON: ${error instanceof Error ? error.message : ''}${txnHelp}`,
    );
  }
  const fields = asObject('transaction', parsed);
  const list = (name: string): readonly Json[] => {
    const value = fields[name] ?? [];
    if (!Array.isArray(value)) throw new UsageError(`'${name}' must be a list${txnHelp}`);
    return value.map((element) => asObject(name, element));
  };
  return {
    compare: list('compare').map((compare) => ({
      key: text8('compare.key', compare['key']),
      exists: typeof compare['exists'] === 'boolean' ? compare['exists'] : null,
      revision: typeof compare['revision'] === 'number' ? compare['revision'] : null,
      value: compare['value'] === undefined ? null : text8('compare.value', compare['value']),
    })),
    then: list('then').map(parseOperation),
    else: list('else').map(parseOperation),
  };
}

function asObject(name: string, value: unknown): Json {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw new UsageError(`'${name}' must be an object, got ${JSON.stringify(value)}${txnHelp}`);
}

function text8(name: string, value: unknown): Uint8Array {
  if (typeof value === 'string') return bytes(value);
  throw new UsageError(`'${name}' must be text, got ${JSON.stringify(value)}`);
}

function parseOperation(operation: Json): OperationMessage {
  const [kind] = Object.keys(operation);
  const fields = asObject(String(kind), operation[kind ?? '']);
  const key = text8(`${kind}.key`, fields['key']);
  if (kind === 'get') return { get: { key } };
  if (kind === 'put') {
    return {
      put: {
        key,
        value: text8('put.value', fields['value']),
        ttlMs: Number(fields['ttl_ms'] ?? 0),
      },
    };
  }
  if (kind === 'delete') return { delete: { key } };
  if (kind === 'increment') return { increment: { key, delta: Number(fields['delta'] ?? 1) } };
  throw new UsageError(`'${kind}' is no operation: use get, put, delete or increment`);
}

function addScan(kv: Command): void {
  addReadFlags(
    kv.command('scan').description('print keys in order: within a slot by key, else slot by slot'),
  )
    .option('--prefix <text>', 'only keys that begin with this', '')
    .option('--slot <n>', 'only this slot')
    .option('--limit <n>', 'at most so many keys', '100')
    .option('--keys-only', 'no values')
    .action((flags: ScanFlags) =>
      withClient(flags, async (client) => {
        const rows: KeyValueMessage[] = [];
        const session = tokenOf(flags);
        const scan = {
          prefix: bytes(flags.prefix),
          slot: flags.slot === undefined ? null : parseInteger('--slot', flags.slot, 0, 16_383),
          limit: parseInteger('--limit', flags.limit, 1, intMax),
          ...readOf(flags),
          keysOnly: flags.keysOnly ?? false,
        };
        for await (const page of client.scan(scan, session)) {
          if (flags.output === 'json') for (const kv of page.kvs ?? []) printJson(kvJson(kv));
          else rows.push(...(page.kvs ?? []));
        }
        if (flags.output === 'table') printRows(rows, flags.keysOnly ?? false);
        printToken(session);
      }),
    );
}

function printRows(rows: readonly KeyValueMessage[], keysOnly: boolean): void {
  const short = (text: string): string => {
    const line = text.replaceAll('\n', '\\n');
    return line.length > 60 ? `${line.slice(0, 57)}...` : line;
  };
  printTable(
    keysOnly ? ['key', 'revision'] : ['key', 'revision', 'value'],
    rows.map((kv) => {
      const head = [showBytes(kv.key), String(kv.revision)];
      return keysOnly ? head : [...head, short(showBytes(kv.value))];
    }),
  );
  console.log(`${rows.length} keys`);
}
