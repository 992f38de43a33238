import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Format, meaning, placeAt, Schema, words } from '../src/keys';

const schema: Schema = {
	properties: {
		target: { anyOf: [{ type: 'string', description: 'what to run in the context of', examples: ['pod/a b'] }, { properties: { path: { type: 'string' } } }] },
		feature: {
			properties: {
				network: {
					properties: {
						incoming: {
							anyOf: [
								{ enum: ['mirror', 'steal', 'off'], description: 'what happens to traffic' },
								{ properties: { mode: { enum: ['mirror', 'steal'] }, ports: { items: { type: 'integer' } }, http_filter: { properties: { all_of: { items: { properties: { header: { type: 'string', description: 'a header' } } } } } } } },
							],
						},
						dns: { type: 'boolean', description: 'names', deprecated: true },
					},
				},
			},
		},
	},
};

// cursor splits a text at the place of |.
function cursor(text: string): [string[], number, number] {
	const before = text.slice(0, text.indexOf('|')).split('\n');
	return [text.replace('|', '').split('\n'), before.length - 1, before[before.length - 1].length];
}

test('where the cursor is, and what can stand there', () => {
	for (const [format, text, path, value, want] of [
		['yaml', '|', [], undefined, ['target', 'feature']],
		['yaml', 'fe|', [], undefined, ['target', 'feature']],
		['yaml', 'feature:\n  |', ['feature'], undefined, ['network']],
		['yaml', 'feature:\n  network:\n    # a word: of explanation\n\n    inc|', ['feature', 'network'], undefined, ['incoming', 'dns']],
		['yaml', 'feature:\n  network:\n    incoming: |', ['feature', 'network'], 'incoming', ['mirror', 'steal', 'off']],
		['yaml', 'feature:\n  network:\n    dns: |', ['feature', 'network'], 'dns', ['true', 'false']],
		['yaml', 'feature:\n  network:\n    incoming:\n      mode: steal\n    |', ['feature', 'network'], undefined, ['incoming', 'dns']],
		['yaml', 'feature:\n  network:\n    incoming:\n      http_filter:\n        all_of:\n          - |', ['feature', 'network', 'incoming', 'http_filter', 'all_of'], undefined, ['header']],
		['yaml', 'target: |', [], 'target', ['pod/a b']],
		['yaml', 'unknown:\n  |', ['unknown'], undefined, []],
		['toml', '|', [], undefined, ['target', 'feature']],
		['toml', '[feature.network]\n|', ['feature', 'network'], undefined, ['incoming', 'dns']],
		['toml', '[feature]\nnetwork.|', ['feature', 'network'], undefined, ['incoming', 'dns']],
		['toml', '[feature]\nnetwork.incoming = |', ['feature', 'network'], 'incoming', ['mirror', 'steal', 'off']],
		['toml', '[feature.network.incoming]\nmode = "steal"\n[feature . network]\ndns = |', ['feature', 'network'], 'dns', ['true', 'false']],
	] as const) {
		const place = placeAt(...cursor(text), format as Format);
		assert.deepEqual([place.path, place.value], [path, value], text);
		assert.deepEqual(words(schema, place, format as Format).map(w => w.text), want, text);
	}
});

test('how words are written', () => {
	const insert = (format: Format, text: string): string[] => words(schema, placeAt(...cursor(text), format), format).map(w => w.insert);
	assert.deepEqual(insert('yaml', '|'), ['target: ', 'feature:\n  ']);
	assert.deepEqual(insert('yaml', 'feature:\n  network:\n    |'), ['incoming: ', 'dns: ']);
	assert.deepEqual(insert('toml', '|'), ['target = ', 'feature.']);
	assert.deepEqual(insert('toml', 'feature.network.incoming = |'), ['"mirror"', '"steal"', '"off"']);
	assert.deepEqual(insert('yaml', 'target: |'), ['"pod/a b"']);
	assert.ok(words(schema, { path: ['feature', 'network'] }, 'yaml').find(w => w.text === 'dns')!.deprecated);
});

test('what a key means', () => {
	for (const [format, text, want] of [
		['yaml', 'tar|get: pod/a', 'what to run in the context of\n\nExample: `"pod/a b"`'],
		['yaml', 'target: po|d/a', ''],
		['yaml', 'feature:\n  network:\n    |dns: true', 'names'],
		['toml', '[feature.network]\ndn|s = true', 'names'],
		['toml', 'feature.network.in|coming = "steal"', 'what happens to traffic'],
		['yaml', 'unk|nown: 1', ''],
		['yaml', '# no key|', ''],
	] as const) {
		assert.equal(meaning(schema, ...cursor(text), format as Format), want, text);
	}
});
