// The item in the status bar: whether mirrord is on here, and for which target.

import * as vscode from 'vscode';
import { Sessions } from './sessions';
import { State } from './state';
import { nameOf } from './targets';

export class StatusBar {
	private readonly item = vscode.window.createStatusBarItem('mirrord', vscode.StatusBarAlignment.Left, 10);

	constructor(private readonly state: State, private readonly sessions: Sessions) {
		this.item.name = 'mirrord';
		this.item.command = 'mirrord.menu';
		this.show();
		this.item.show();
	}

	show(): void {
		const s = this.sessions.running.at(-1);
		const where = s ? `${s.status.target ?? 'no target'}${s.status.namespace ? ` in ${s.status.namespace}` : ''}` : this.state.choice ? nameOf(this.state.choice) : '';
		const parts = [this.state.on ? 'on' : 'off', where, s ? s.status.mode : ''].filter(p => p !== '');
		this.item.text = `${s?.status.lost ? '$(debug-disconnect)' : this.state.on ? '$(vm-running)' : '$(vm)'} mirrord: ${parts.join(' · ')}`;
		this.item.tooltip = this.state.on
			? 'mirrord is on: what is launched here runs in the context of its target. Click for the menu.'
			: 'mirrord is off: launches are as without it. Click for the menu.';
		this.item.accessibilityInformation = { label: `mirrord is ${parts.join(', ')}`, role: 'button' };
	}

	dispose(): void {
		this.item.dispose();
	}
}
