/* Sugar only; the panel works without it: tabs whose reference holds a picture carry a dot. */
(function () {
    "use strict";

    function markFilledTabs(units) {
        const buttons = units.querySelectorAll(":scope > .tab-nav > button");
        const tabs = units.querySelectorAll(":scope > .tabitem");
        tabs.forEach((tab, index) => {
            const hasPicture = Boolean(tab.querySelector('[data-testid="image"] img'));
            buttons[index]?.classList.toggle("instantstyle-filled", hasPicture);
        });
    }

    onAfterUiUpdate(() => gradioApp().querySelectorAll(".instantstyle-units").forEach(markFilledTabs));
})();
