import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { protoFiles, protoFolder, typeOf } from '../../proto/definitions.js';

/**
 * The source of the interfaces, beside the .proto files. Types are gone at run time, so their text is
 * compared: one field a line, as the formatter keeps it.
 */
const source = readFileSync(join(protoFolder, 'messages.ts'), 'utf8');

interface Interface {
  readonly name: string;
  /** Field name to its type as written, with `?` in front of it where it may be left out. */
  readonly fields: ReadonlyMap<string, string>;
}

function interfacesOf(text: string): readonly Interface[] {
  return [...text.matchAll(/^export interface (\w+) \{\n([^}]*)\}/gm)].map(([, name, body]) => {
    const lines = (body ?? '').matchAll(/^ {2}(readonly )?(\w+)(\??): (.+);$/gm);
    const fields = [...lines]
      // Which member of a oneof was sent, and what keeps an empty message from being anything.
      .filter(([, readonly]) => readonly === undefined)
      .map(([, , field, mark, type]): [string, string] => [
        field ?? '',
        (mark ?? '') + (type ?? ''),
      ]);
    return { name: name ?? '', fields: new Map(fields) };
  });
}

/** Where the interface has another name than the message, because the short one says too little. */
function interfaceNameOf(message: string): string {
  const named = new Set(interfacesOf(source).map(({ name }) => name));
  return named.has(message) ? message : `${message}Message`;
}

/** Messages that only other programs and the handshake read; they have no interface here. */
const handshake = new Set(['Hello', 'HelloReply']);

/** Names of all messages of package quorate.v1, in file order. */
function messageNames(): readonly string[] {
  return protoFiles.flatMap((file) =>
    [...readFileSync(join(protoFolder, file), 'utf8').matchAll(/^message (\w+)/gm)].map(
      ([, name]) => name ?? '',
    ),
  );
}

const scalars = new Map([
  ['bytes', 'Uint8Array'],
  ['string', 'string'],
  ['bool', 'boolean'],
  ['double', 'number'],
  ...['uint32', 'uint64', 'int32', 'int64', 'sint64', 'sint32'].map((type): [string, string] => [
    type,
    'number',
  ]),
]);

interface ProtoField {
  readonly name: string;
  readonly type: string;
  readonly repeated: boolean;
  readonly message: boolean;
  readonly inOneof: boolean;
}

function protoFieldsOf(message: string): readonly ProtoField[] {
  return typeOf(`quorate.v1.${message}`).fieldsArray.map((field) => {
    const resolved = field.resolve().resolvedType;
    const isMessage = resolved !== null && 'fieldsArray' in resolved;
    const short = field.type.split('.').at(-1) ?? '';
    return {
      name: field.name,
      // Enumerations are numbers.
      type: isMessage ? interfaceNameOf(short) : (scalars.get(field.type) ?? 'number'),
      repeated: field.repeated,
      message: isMessage,
      inOneof: field.partOf !== null,
    };
  });
}

/** The field as the interface must write it; a `?` in front is the interface's own choice. */
function typeTextOf({ type, repeated, message, inOneof }: ProtoField): string {
  if (repeated) return `${type}[]`;
  return message || inOneof ? `Optional<${type}>` : type;
}

describe('the interfaces of the messages', () => {
  const interfaces = new Map(interfacesOf(source).map((each) => [each.name, each]));
  const messages = messageNames().filter((name) => !handshake.has(name));

  it('are as many as the messages, and have their names', () => {
    expect(messages).to.have.length.above(20);
    expect([...interfaces.keys()].sort()).to.deep.equal(messages.map(interfaceNameOf).sort());
  });

  for (const message of messages) {
    it(`have the fields of the .proto file, of the same types: ${message}`, () => {
      const fields = interfaces.get(interfaceNameOf(message))?.fields ?? new Map<string, string>();
      const written = [...fields].map(([name, type]) => `${name}: ${type.replace('?', '')}`);
      const declared = protoFieldsOf(message).map((field) => `${field.name}: ${typeTextOf(field)}`);
      expect(written.sort()).to.deep.equal(declared.sort());
    });

    it(`let be left out what reads as null when it was not sent: ${message}`, () => {
      const fields = interfaces.get(interfaceNameOf(message))?.fields ?? new Map<string, string>();
      for (const field of protoFieldsOf(message)) {
        if (field.repeated || !(field.message || field.inOneof)) continue;
        expect(fields.get(field.name), field.name).to.match(/^\?Optional</);
      }
    });
  }

  it('number the enumerations as the .proto files do', () => {
    const root = typeOf('quorate.v1.GetRequest').root;
    for (const [constant, name] of [
      ['ReadLevel', 'quorate.v1.ReadLevel'],
      ['OutcomeCode', 'quorate.v1.Outcome'],
    ] as const) {
      const text = new RegExp(`export const ${constant} = \\{ (.+) \\} as const`).exec(source)?.[1];
      const values = Object.entries(root.lookupEnum(name).values).map(
        ([key, value]) => `${key}: ${value}`,
      );
      expect(text?.split(', '), constant).to.deep.equal(values);
    }
  });
});
