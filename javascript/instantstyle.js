/* Sugar only; the panel works without it: tabs that hold a picture or a LoRA carry a dot. */
(function () {
    "use strict";

    /* The tab's reference, or a file among "More pictures"; not the pictures to remove and to avoid. */
    const REFERENCE =
        '[id$="_image"]:not([id$="_content_image"]):not([id$="_negative_image"]) img, [id$="_more_pictures"] .file-preview';

    function markFilledTabs(units) {
        const buttons = units.querySelectorAll(":scope > .tab-nav > button");
        const tabs = units.querySelectorAll(":scope > .tabitem");
        tabs.forEach((tab, index) => {
            const isFilled = tab.querySelector(REFERENCE) || tab.querySelector('[id$="_lora"] input')?.value;
            buttons[index]?.classList.toggle("instantstyle-filled", Boolean(isFilled));
        });
    }

    onAfterUiUpdate(() => gradioApp().querySelectorAll(".instantstyle-units").forEach(markFilledTabs));
})();
