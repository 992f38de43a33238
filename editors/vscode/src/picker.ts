// The list to choose a target from.

import * as vscode from 'vscode';
import { run } from './cli';
import { State } from './state';
import { Choice, Listing, Row, rows } from './targets';

type Item = vscode.QuickPickItem & { choice?: Choice };

const refresh: vscode.QuickInputButton = { iconPath: new vscode.ThemeIcon('refresh'), tooltip: 'Ask again' };
const others = {
	namespace: { iconPath: new vscode.ThemeIcon('symbol-namespace'), tooltip: 'Another namespace' } as vscode.QuickInputButton,
	context: { iconPath: new vscode.ThemeIcon('server-environment'), tooltip: 'Another context' } as vscode.QuickInputButton,
};

// chooseTarget asks for a target and remembers it. Undefined: nobody chose.
export function chooseTarget(file: string, state: State, folder?: string): Promise<Choice | undefined> {
	return new Promise((resolve, reject) => {
		const pick = vscode.window.createQuickPick<Item>();
		const asking = new vscode.CancellationTokenSource();
		let list: Listing | undefined, naming: 'namespace' | 'context' | undefined, accepted = false;
		let place: { namespace?: string; context?: string } = state.choice ?? {};
		const ask = async (): Promise<void> => {
			pick.busy = true;
			try {
				const args = ['ls', '-o', 'json', ...(place.namespace ? ['-n', place.namespace] : []), ...(place.context ? ['--context', place.context] : [])];
				list = JSON.parse(await run(file, args, { cwd: folder, stop: asking.token })) as Listing;
				show();
			} catch (err) {
				pick.hide();
				reject(err);
			} finally {
				pick.busy = false;
			}
		};
		const show = (): void => {
			naming = undefined;
			pick.title = `mirrord: target in ${list!.current_namespace}${list!.context ? ` (context ${list!.context})` : ''}`;
			pick.placeholder = 'Target to run in the context of; Escape starts nothing';
			pick.buttons = [...((list!.contexts?.length ?? 0) > 1 ? [others.context] : []), ...(list!.namespaces ? [others.namespace] : []), refresh];
			pick.items = rows(list!, state.recent).map(item);
		};
		const name = (what: 'namespace' | 'context'): void => {
			naming = what;
			pick.value = '';
			pick.title = `mirrord: ${what}`;
			pick.placeholder = 'Escape starts nothing';
			pick.buttons = [];
			pick.items = (what === 'namespace' ? list?.namespaces : list?.contexts)?.map(n => ({ label: n })) ?? [];
		};
		pick.matchOnDescription = true;
		pick.title = 'mirrord: target';
		pick.placeholder = 'Asking the cluster…';
		pick.onDidTriggerButton(b => b === refresh ? void ask() : name(b === others.context ? 'context' : 'namespace'));
		pick.onDidAccept(async () => {
			const chosen = pick.selectedItems[0];
			if (naming && chosen) {
				place = naming === 'namespace' ? { ...place, namespace: chosen.label } : { context: chosen.label }; // with its own namespace
				pick.value = '';
				pick.items = [];
				await ask();
			} else if (chosen?.choice) {
				accepted = true;
				pick.hide();
				await state.setChoice(chosen.choice);
				resolve(chosen.choice);
			}
		});
		pick.onDidHide(() => {
			asking.cancel();
			pick.dispose();
			if (!accepted) {
				resolve(undefined);
			}
		});
		pick.show();
		void ask();
	});
}

function item(r: Row): Item {
	return r.separator ? { label: r.label, kind: vscode.QuickPickItemKind.Separator } : { label: r.label, description: r.description, choice: r.choice };
}
