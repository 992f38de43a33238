// The keys of a configuration in YAML and TOML, by its schema: which can stand at a
// place, and what they mean. (JSON is VS Code's own affair.) Pure. It reads lines, not
// the whole language: blocks of YAML by their indentation, tables of TOML by their
// headers; what is written in braces it does not look into.

export interface Schema {
	description?: string;
	type?: string | string[];
	enum?: unknown[];
	examples?: unknown[];
	deprecated?: boolean;
	properties?: Record<string, Schema>;
	anyOf?: Schema[];
	items?: Schema;
}

export type Format = 'yaml' | 'toml';

// Place is where the cursor stands: in the maps of these keys, in front of a key or, with
// value, behind that key.
export interface Place {
	path: string[];
	value?: string;
}

const keyOfYAML = /^(\s*(?:- +)?)("?)([\w$.-]+)\2\s*:(.*)$/, keyOfTOML = /^\s*("?)([\w$-]+(?:\.[\w$-]+)*)\1\s*=(.*)$/, header = /^\s*\[\[?\s*([\w$-]+(?:\s*\.\s*[\w$-]+)*)\s*\]\]?/;

// placeAt finds where a column of a line is.
export function placeAt(lines: string[], line: number, column: number, format: Format): Place {
	const before = lines[line].slice(0, column);
	if (format === 'toml') {
		let path: string[] = [];
		for (const l of lines.slice(0, line)) {
			path = header.exec(l)?.[1].split('.').map(k => k.trim()) ?? path;
		}
		const m = keyOfTOML.exec(before);
		const keys = (m ? m[2] : before.trim().replace(/[^.]*$/, '')).split('.').filter(k => k !== '');
		return m ? { path: [...path, ...keys.slice(0, -1)], value: keys.at(-1) } : { path: [...path, ...keys] };
	}
	const here = keyOfYAML.exec(before);
	let indent = here ? here[1].length : /^\s*(?:- +)?/.exec(before)![0].length;
	const path: string[] = [];
	for (let i = line - 1; i >= 0 && indent > 0; i--) {
		const m = keyOfYAML.exec(lines[i]);
		if (m && m[1].length < indent && !lines[i].trimStart().startsWith('#')) {
			path.unshift(m[3]);
			indent = m[1].length;
		}
	}
	return here ? { path, value: here[3] } : { path };
}

// at are the schemas of a path: several where a value may be of several kinds.
export function at(schema: Schema, path: string[]): Schema[] {
	let all = kinds(schema);
	for (const key of path) {
		all = all.flatMap(s => s.properties?.[key] ? kinds(s.properties[key]) : []);
	}
	return all;
}

function kinds(s: Schema): Schema[] {
	return [s, ...(s.anyOf ?? []).flatMap(kinds), ...(s.items ? kinds(s.items) : [])];
}

export interface Word {
	text: string;
	description: string;
	deprecated: boolean;
	insert: string;
}

// words are what can stand at a place.
export function words(schema: Schema, p: Place, format: Format): Word[] {
	const found = new Map<string, Word>();
	if (p.value !== undefined) {
		for (const s of at(schema, [...p.path, p.value])) {
			const type = ([] as string[]).concat(s.type ?? []);
			for (const v of [...(s.enum ?? []), ...(type.includes('boolean') ? [true, false] : []), ...(s.examples ?? [])]) {
				if (typeof v !== 'object') {
					const text = String(v);
					found.set(text, { text, description: s.description ?? '', deprecated: false, insert: typeof v === 'string' && (format === 'toml' || !/^[\w./-]+$/.test(v)) ? JSON.stringify(v) : text });
				}
			}
		}
		return [...found.values()];
	}
	for (const s of at(schema, p.path)) {
		for (const [key, of] of Object.entries(s.properties ?? {})) {
			const table = kinds(of).some(k => k.properties) && !kinds(of).some(k => k.enum?.some(v => typeof v === 'string') || ([] as string[]).concat(k.type ?? []).includes('string'));
			found.set(key, { text: key, description: describe(of), deprecated: of.deprecated ?? false, insert: format === 'yaml' ? `${key}:${table ? '\n  ' : ' '}` : table ? `${key}.` : `${key} = ` });
		}
	}
	return [...found.values()];
}

// meaning is what a key means that stands in a line, under the column; '' if nothing is
// known.
export function meaning(schema: Schema, lines: string[], line: number, column: number, format: Format): string {
	const m = (format === 'yaml' ? keyOfYAML : keyOfTOML).exec(lines[line]);
	const key = format === 'yaml' ? m?.[3] : m?.[2];
	if (!key || column > lines[line].indexOf(key) + key.length || column < lines[line].indexOf(key)) {
		return '';
	}
	const place = placeAt(lines, line, lines[line].indexOf(key), format);
	return at(schema, [...place.path, ...(format === 'toml' ? key.split('.') : [key])]).map(describe).find(d => d !== '') ?? '';
}

function describe(s: Schema): string {
	const example = s.examples?.length ? `\n\nExample: \`${JSON.stringify(s.examples[0])}\`` : '';
	return s.description ? s.description + example : '';
}
