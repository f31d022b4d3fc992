/** What a block of fields asks for, if it is a well-formed request (RFC 9113, 8.2 and 8.3). */
import type { HeaderField } from './hpack-table.js';

export interface RequestHead {
  readonly method: string;
  readonly path: string;
  /** All fields, pseudo-fields first, as they came. */
  readonly fields: readonly HeaderField[];
  /** Of the body, if the client has said so. */
  readonly contentLength: number | undefined;
}

/** Of HTTP/1.1, where they describe one connection (8.2.2). */
const connectionFields: ReadonlySet<string> = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
]);

const colon = 0x3a;

/** Undefined: malformed, which is an error of the stream. */
export function readRequest(fields: readonly HeaderField[]): RequestHead | undefined {
  let method: string | undefined;
  let path: string | undefined;
  let scheme: string | undefined;
  let authority: string | undefined;
  let contentLength: number | undefined;
  let at = 0;
  for (; at < fields.length; at++) {
    const { name, value, valid } = fields[at] ?? noField;
    if (name.charCodeAt(0) !== colon) break;
    // Each at most once, and no other names.
    if (!valid) return undefined;
    if (name === ':method' && method === undefined) method = value;
    else if (name === ':path' && path === undefined) path = value;
    else if (name === ':scheme' && scheme === undefined) scheme = value;
    else if (name === ':authority' && authority === undefined) authority = value;
    else return undefined;
  }
  if (!method || !path || !scheme) return undefined;
  for (; at < fields.length; at++) {
    const field = fields[at] ?? noField;
    if (!isRegular(field)) return undefined;
    if (field.name === 'content-length') {
      if (contentLength !== undefined || !/^\d{1,15}$/.test(field.value)) return undefined;
      contentLength = Number(field.value);
    }
  }
  return { method, path, fields, contentLength };
}

const noField: HeaderField = { name: '', value: '', valid: false };

/** May stand behind the pseudo-fields of a request, or in its trailers. */
export function isRegular({ name, value, valid }: HeaderField): boolean {
  if (!valid || name.charCodeAt(0) === colon) return false;
  return name === 'te' ? value === 'trailers' : !connectionFields.has(name);
}

export function fieldOf(head: RequestHead, name: string): string | undefined {
  for (const field of head.fields) if (field.name === name) return field.value;
  return undefined;
}
