// Where programs cannot run in a session: the extension with a VS Code that only records.

import assert from 'node:assert/strict';
import Module from 'node:module';
import { test } from 'node:test';

const shown: { text: string; buttons: string[] }[] = [];
const executed: string[] = [];
const commands = new Map<string, () => Promise<unknown>>();

// anything stands for what nobody asks about here: it can be called, made and asked
// for its members.
const anything: any = new Proxy(function () { /* nothing */ }, {
	get: (_, name) => name === 'then' ? undefined : name === Symbol.iterator ? [][Symbol.iterator] : anything,
	apply: () => anything,
	construct: () => anything,
	set: () => true,
});

// within is what is known, and anything for the rest.
const within = (known: object): any => new Proxy(known, { get: (o, name) => Reflect.get(o, name) ?? anything });

const nothing = { get: (_: string, other: unknown) => other }; // is remembered or set

const vscode = within({
	window: within({
		showErrorMessage: async (text: string, ...buttons: string[]) => {
			shown.push({ text, buttons });
			return buttons[0];
		},
	}),
	commands: within({
		registerCommand: (name: string, f: () => Promise<unknown>) => commands.set(name, f),
		executeCommand: (name: string) => executed.push(name),
	}),
	workspace: within({ textDocuments: [], getConfiguration: () => nothing }),
});

for (const [platform, buttons, does] of [
	['darwin', ['Reopen in Container', 'Connect by SSH'], 'remote-containers.reopenInContainer'],
	['win32', ['Reopen in WSL', 'Reopen in Container', 'Connect by SSH'], 'remote-wsl.reopenInWSL'],
] as const) {
	test(`on ${platform} it says where it works, and offers to reopen there`, async () => {
		const load = (Module as any)._load, own = process.platform;
		(Module as any)._load = (name: string, ...rest: unknown[]) => name === 'vscode' ? vscode : load(name, ...rest);
		Object.defineProperty(process, 'platform', { value: platform });
		shown.length = executed.length = 0;
		try {
			require('../src/extension').activate(within({ subscriptions: [], workspaceState: nothing }));
			await commands.get('mirrord.chooseTarget')!();
			await new Promise(setImmediate); // the button is pressed
		} finally {
			(Module as any)._load = load;
			Object.defineProperty(process, 'platform', { value: own });
		}
		assert.equal(shown.length, 1);
		assert.match(shown[0].text, /in WSL, in a dev container or on a Linux machine by SSH/);
		assert.deepEqual(shown[0].buttons, buttons);
		assert.deepEqual(executed, [does]);
	});
}
