/** A strict reader of the Prometheus text format: throws at the first thing that is not as it should be. */

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly samples: Sample[];
}

const suffixes = { counter: [''], gauge: [''], histogram: ['_bucket', '_sum', '_count'] } as const;

/** Families by name. Every sample stands below the HELP and TYPE of its family, and none comes twice. */
export function parseMetrics(text: string): ReadonlyMap<string, Family> {
  const families = new Map<string, Family>();
  const seen = new Set<string>();
  let help: { name: string; text: string } | undefined;
  let family: Family | undefined;
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  for (const line of text.slice(0, -1).split('\n')) {
    if (line === '') continue;
    const helpLine = /^# HELP ([a-z][a-z0-9_]*) (\S.*)$/.exec(line);
    const typeLine = /^# TYPE ([a-z][a-z0-9_]*) (counter|gauge|histogram)$/.exec(line);
    if (helpLine !== null) {
      help = { name: helpLine[1] ?? '', text: helpLine[2] ?? '' };
    } else if (typeLine !== null) {
      const name = typeLine[1] ?? '';
      if (help?.name !== name) throw new Error(`${name} has no HELP`);
      if (families.has(name)) throw new Error(`${name} comes twice`);
      family = { name, type: typeLine[2] as Family['type'], help: help.text, samples: [] };
      families.set(name, family);
    } else {
      const sample = parseSample(line);
      const of = family;
      if (of === undefined || !suffixes[of.type].some((end) => sample.name === of.name + end))
        throw new Error(`not below its family: ${line}`);
      const key = `${sample.name} ${JSON.stringify(Object.entries(sample.labels).sort())}`;
      if (seen.has(key)) throw new Error(`twice: ${line}`);
      seen.add(key);
      of.samples.push(sample);
    }
  }
  return families;
}

function parseSample(line: string): Sample {
  const match = /^([a-z][a-z0-9_]*)(?:\{(.*)\})? (\S+)$/.exec(line);
  if (match === null) throw new Error(`not a sample: ${line}`);
  const [, name = '', inside = '', number = ''] = match;
  const value = number === '+Inf' ? Infinity : Number(number);
  if (Number.isNaN(value)) throw new Error(`not a number: ${line}`);
  const labels: Record<string, string> = {};
  let rest = inside;
  while (rest !== '') {
    const label = /^([a-z][a-z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)/.exec(rest);
    if (label === null) throw new Error(`malformed labels: ${line}`);
    labels[label[1] ?? ''] = label[2] ?? '';
    rest = rest.slice(label[0].length);
  }
  return { name, labels, value };
}

/** The sum of the samples of a family that have these labels; throws when there is none. */
export function valueOf(
  families: ReadonlyMap<string, Family>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  const found = (families.get(name)?.samples ?? []).filter((sample) =>
    Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
  );
  if (found.length === 0) throw new Error(`no ${name} ${JSON.stringify(labels)}`);
  return found.reduce((sum, { value }) => sum + value, 0);
}
